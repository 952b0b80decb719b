"""What a training example knows: the last state strictly before its label, as Feast joins."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from feature_tables import write_tables
from feedrank_core.contracts.events import InteractionType
from feedrank_core.contracts.features import COUNTER_COLUMNS, USER_PROFILE_COLUMNS
from feedrank_core.contracts.items import ItemType
from feedrank_core.contracts.users import AgeBand, Platform
from feedrank_core.features.encoding import FIRST_WORD, FeatureSchema
from feedrank_core.runtime.lake import Lake
from feedrank_trainer.examples import read_shard
from feedrank_trainer.labels import USER_DENSE, labelled_actions
from feedrank_trainer.pairs import PAIRS, SCHEMA, write_pairs

START = datetime(2026, 1, 1, tzinfo=UTC)
AS_OF = START + timedelta(days=30)
LABEL_AT = START + timedelta(days=10)
NUM_ITEMS = 5


def item(number: int) -> dict:
    return {
        "item_id": f"item-{number}",
        "item_type": ItemType.POST,
        "creator_id": "c",
        "category": "music",
        "created_at": START,
        "active": True,
        "accepted_at": START,
    }


def profile(country: str, at: datetime, user: str = "u") -> dict:
    return {
        "user_id": user,
        "country": country,
        "age_band": AgeBand.FROM_25,
        "platform": Platform.WEB,
        "interests": [country],
        "accepted_at": at,
    }


def action(number: int, kind: InteractionType, at: datetime, user: str = "u") -> dict:
    return {
        "event_id": f"e{number}",
        "event_type": kind,
        "user_id": user,
        "item_id": f"item-{number % NUM_ITEMS}",
        "request_id": f"r{number}",
        "surface": "home",
        "occurred_at": at,
        "accepted_at": at,
    }


def write_world(root: Path, actions: list[dict], profiles: list[dict]) -> None:
    """Feature tables of a lake that holds these."""
    lake = Lake(root / "lake")
    lake.append("items", [item(n) for n in range(NUM_ITEMS)])
    lake.append("interactions", actions)
    lake.append("users", profiles)
    write_tables(lake, root / "features", AS_OF)


def labels(root: Path) -> pa.Table:
    with duckdb.connect() as connection:
        batches = labelled_actions(
            root / "features", as_of=AS_OF, connection=connection, rows=1 << 16
        )
        return pa.Table.from_batches(list(batches))


def only_example(root: Path) -> tuple[FeatureSchema, dict[str, np.ndarray]]:
    """The example of the like at LABEL_AT."""
    with duckdb.connect() as connection:
        write_pairs(root / "features", root / "run", as_of=AS_OF, connection=connection)
    schema = FeatureSchema.model_validate_json((root / "run" / SCHEMA).read_bytes())
    pieces = [p for path in (root / "run" / PAIRS).iterdir() for p in read_shard(path)]
    found = [
        {name: values[row] for name, values in piece.items()}
        for piece in pieces
        for row in np.flatnonzero(piece["at_s"] == LABEL_AT.timestamp())
    ]
    assert len(found) == 1
    return schema, found[0]


PAST = [
    action(1, InteractionType.LIKE, LABEL_AT - timedelta(days=2)),
    action(2, InteractionType.CLICK, LABEL_AT - timedelta(days=1)),
]
LABEL = action(3, InteractionType.LIKE, LABEL_AT)
OLD_PROFILE = profile("NL", START)


@pytest.mark.parametrize("late", [timedelta(0), timedelta(microseconds=1), timedelta(days=3)])
def test_nothing_planted_at_the_label_or_after_it_changes_its_example(tmp_path, late):
    plain, planted = tmp_path / "plain", tmp_path / "planted"
    write_world(plain, [*PAST, LABEL], [OLD_PROFILE])
    after = LABEL_AT + late
    write_world(
        planted,
        [
            *PAST,
            LABEL,
            action(4, InteractionType.HIDE, after),
            action(9, InteractionType.VIEW, after),
        ],
        [OLD_PROFILE, profile("DE", after)],
    )
    (schema, expected), (other, found) = only_example(plain), only_example(planted)
    assert (schema.countries, other.countries) == (("NL",), ("DE", "NL"))
    words = ((schema, expected), (other, found))
    assert [one.countries[row["profile"][0] - FIRST_WORD] for one, row in words] == ["NL", "NL"]
    for name in ("history", "history_actions", "history_ages_s", "interests", "dense"):
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
    assert expected["dense"].any()
    assert (expected["history"] >= 0).sum() == len(PAST)


def test_the_profile_of_the_labels_time_is_used_not_the_last(tmp_path):
    between = profile("BE", LABEL_AT - timedelta(hours=1))
    write_world(tmp_path, [*PAST, LABEL], [OLD_PROFILE, between, profile("DE", AS_OF)])
    rows = labels(tmp_path).to_pylist()
    assert [row["country"] for row in rows] == ["NL", "NL", "BE"]


def test_every_value_equals_feasts_own_join_a_microsecond_before_the_label(tmp_path, feast_store):
    rng, kinds = np.random.default_rng(5), list(InteractionType)
    users = [f"user-{n}" for n in range(8)]
    actions = [
        action(n, kinds[rng.integers(len(kinds))], START + timedelta(minutes=int(m)), users[n % 8])
        for n, m in enumerate(rng.integers(0, 20 * 24 * 60, 300))
    ]
    profiles = [
        profile(("NL", "DE", "BE")[n % 3], START + timedelta(hours=int(h)), users[n % 7])
        for n, h in enumerate(rng.integers(0, 20 * 24, 40))
    ]
    write_world(tmp_path, actions, profiles)
    ours = labels(tmp_path)
    store = feast_store.open_store(tmp_path, "redis://127.0.0.1:1/0")
    feast_store.apply(store)
    asked = pd.DataFrame({
        "user_id": ours["user_id"].to_pylist(),
        "row": np.arange(len(ours)),
        "event_timestamp": pd.to_datetime(ours["at"].to_pylist()) - pd.Timedelta(microseconds=1),
    })  # fmt: skip
    names = [*(f"user_counters:{n}" for n in (*USER_DENSE, "counted_at_us")),
             *(f"user_profile:{n}" for n in USER_PROFILE_COLUMNS)]  # fmt: skip
    theirs = store.get_historical_features(entity_df=asked, features=names).to_df()
    theirs = theirs.sort_values("row").reset_index(drop=True)
    assert len(theirs) == len(ours) > 100
    assert set(USER_DENSE) <= set(COUNTER_COLUMNS)
    for name in USER_DENSE:
        np.testing.assert_array_equal(
            theirs[name].to_numpy(float), ours[name].to_pandas().to_numpy(float), err_msg=name
        )
    for name in ("country", "age_band", "platform"):
        assert [None if pd.isna(v) else v for v in theirs[name]] == ours[name].to_pylist()
    assert [None if v is None else list(v) for v in theirs["interests"]] == ours[
        "interests"
    ].to_pylist()
    assert theirs["likes_7d"].isna().to_numpy().any(), "no label is a reader's first action"
