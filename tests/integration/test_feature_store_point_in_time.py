"""What training knows at each past label, against brute force over what was accepted before it.

The world's events came twice, late (they occurred 400 days before they were accepted), by import
and before their items; readers and items were corrected on the way. The oracle sees, of all that,
only what was accepted strictly before the label.
"""

from __future__ import annotations

from datetime import timedelta

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feature_oracle import Oracle
from feature_tables import write_tables
from feature_world import DAYS, START, lake_of, world
from feedrank_core.contracts.features import (
    COUNTER_COLUMNS,
    HISTORY_LENGTH,
    USER_PROFILE_COLUMNS,
    Table,
)
from feedrank_core.contracts.ids import item_key
from feedrank_core.features.counters import CounterState, value_at
from feedrank_trainer.labels import USER_DENSE, decayed_counters, labelled_actions, seconds

pytestmark = pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning")

AS_OF = START + timedelta(days=DAYS + 2)


@pytest.fixture(scope="module")
def records():
    return world(7, num_events=900)


@pytest.fixture(scope="module")
def features(records, tmp_path_factory):
    root = tmp_path_factory.mktemp("past")
    write_tables(lake_of(root, records), root / "features", AS_OF, num_pieces=2)
    return root / "features"


def labelled(features) -> pa.Table:
    with duckdb.connect() as connection:
        batches = labelled_actions(features, as_of=AS_OF, connection=connection, rows=1 << 16)
        return pa.Table.from_batches(list(batches))


def test_counters_and_profile_of_every_label_are_those_of_strictly_before(features, records):
    table = labelled(features)
    dense = decayed_counters(table, seconds(table["at"]))
    assert table.num_rows > 300
    for row, counted in zip(table.to_pylist(), dense, strict=True):
        then = Oracle(records, row["at"], strictly=True)
        own = then.counters(e for e in then.events if e["user_id"] == row["user_id"])
        expected = [np.log1p(own[name]) for name in USER_DENSE]
        np.testing.assert_allclose(counted, expected, rtol=1e-6, atol=1e-6)
        profile = then.profile(row["user_id"])
        if profile is not None:
            assert {name: row[name] for name in USER_PROFILE_COLUMNS} == profile


def test_histories_cut_from_the_engagements_are_those_of_strictly_before(features, records):
    engagements = pq.read_table(features / Table.ENGAGEMENTS).to_pylist()
    for number in range(0, len(engagements), 7):
        label = engagements[number]
        before = [
            (e["item_key"], e["action"], e["at"])
            for e in engagements
            if e["user_id"] == label["user_id"] and e["at"] < label["at"]
        ]
        then = Oracle(records, label["at"], strictly=True)
        own = then.reader(label["user_id"], then.priors())
        expected = zip(own["hist_item_key"], own["hist_action"], own["hist_at"], strict=True)
        assert before[-HISTORY_LENGTH:] == list(expected)


def test_counters_of_every_labels_item_are_those_of_strictly_before(features, records):
    states = pq.read_table(features / Table.ITEM_COUNTERS).to_pylist()
    oracle = Oracle(records, AS_OF)
    engaged = [e for e in oracle.events if oracle.engaged(e)]
    for label in engaged[::5]:
        at, key = label["accepted_at"], item_key(label["item_id"])
        rows = [s for s in states if s["item_key"] == key and s["event_timestamp"] < at]
        last = max(rows, key=lambda s: s["event_timestamp"], default=None)
        state = CounterState() if last is None else CounterState(
            {name: last[name] for name in COUNTER_COLUMNS}, last["event_timestamp"]
        )  # fmt: skip
        found = dict.fromkeys(COUNTER_COLUMNS, 0.0) | value_at(state, at)
        then = Oracle(records, at, strictly=True)
        expected = then.counters(e for e in then.events if e["item_id"] == label["item_id"])
        assert found == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_the_world_holds_late_and_corrected_records(records):
    late = [e for e in records.interactions if e["accepted_at"] - e["occurred_at"] > timedelta(1)]
    assert late
    assert len({p["user_id"] for p in records.users}) < len(records.users)
    assert len({v["item_id"] for v in records.items}) < len(records.items)
