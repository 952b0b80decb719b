"""Stream and batch: equal in every feature of every entity, and a planted difference is named."""

import os
import random
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
from feature_world import world
from feedrank_cli.audit import as_json, summary, table
from feedrank_cli.bench.movielens import DATA_VARIABLE
from feedrank_core.contracts.features import Counter, Priors
from feedrank_core.contracts.ids import item_key
from feedrank_core.contracts.topics import INTERACTIONS
from feedrank_core.runtime.bus import Record
from feedrank_core.runtime.lake import Lake
from feedrank_feature_store.app import AuditError, audit_skew
from feedrank_feature_store.priors import write_priors
from feedrank_feature_store.settings import Settings
from feedrank_feature_store.stream.catalogue_state import key_bytes
from feedrank_feature_store.stream.counting import COUNTER_INDEX, Moves, fold
from feedrank_feature_store.stream.folding import Folder
from feedrank_feature_store.stream.inputs import FOLDED, from_records, microseconds
from feedrank_feature_store.stream.lake_log import LakeLog, open_state
from feedrank_feature_store.stream.state import State, only_one, user_key
from feedrank_simulator.bulk import write_history
from feedrank_simulator.recipe import Recipe
from rich.console import Console
from stream_world import START, TOPIC_OF, drawn_log, plainly

PRIORS = {"mean_value": 0.3, "click_rate": 0.1, "like_rate": 0.05, "engagement_rate": 0.2}


@pytest.fixture
def settings(tmp_path):
    settings = Settings(home=tmp_path)
    write_priors(Priors(as_of=START, **PRIORS), settings.place.features)
    return settings


def both(settings: Settings, log: list, *, to_stream: list | None = None) -> None:
    """Bring a log into the lake and, as records of the same offsets, into the stream's state."""
    lake, offsets = Lake(settings.place.lake), dict.fromkeys((t.name for t in FOLDED), 0)
    rows: dict[str, list] = {name: [] for name in offsets}
    records = {}
    for message in log:
        topic = TOPIC_OF[type(message)].name
        offset, offsets[topic] = offsets[topic], offsets[topic] + 1
        rows[topic].append(message.model_dump() | {"topic_partition": 0, "topic_offset": offset})
        value = message.model_dump_json().encode()
        records[id(message)] = Record(topic, 0, offset, "k", value, START)
    for topic, of_topic in rows.items():
        lake.append(topic, of_topic, positions={0: offsets[topic]})
    with only_one(settings.place.stream):
        state = State(settings.place.stream)
        folded = log if to_stream is None else to_stream
        Folder(state).fold(from_records([records[id(m)] for m in folded]))
        state.positions = {(topic, 0): end for topic, end in offsets.items()}
        state.checkpoint(now_s=START.timestamp())
        state.close()


def audited(settings: Settings):
    return audit_skew(settings, wait_s=0)


def change(settings: Settings, do) -> None:
    with only_one(settings.place.stream):
        state = State(settings.place.stream)
        do(state)
        state.checkpoint(now_s=START.timestamp())
        state.close()


@pytest.mark.parametrize("seed", range(3))
def test_a_drawn_log_gives_the_same_features_by_both_engines(settings, seed):
    log = drawn_log(random.Random(seed), 900)
    both(settings, log)
    comparison = audited(settings)
    assert comparison.told == []
    assert comparison.users >= len(plainly(log).users) and comparison.items > 0
    assert comparison.values > 60 * comparison.users


@pytest.fixture(scope="module")
def simulated_day(tmp_path_factory):
    """A day of 150 readers, as tables in contract columns."""
    out = tmp_path_factory.mktemp("world")
    recipe = Recipe(seed=5, users=150, items=400, days=1, end=START)
    write_history(recipe.world(), out, seed=5)
    return {t.name: pq.read_table(out / f"{t.name}.parquet") for t in FOLDED}


def test_a_simulated_day_off_the_bus_gives_the_same_features(settings, simulated_day):
    messages = [
        topic.model.model_validate({k: v for k, v in row.items() if k in topic.model.model_fields})
        for topic in FOLDED
        for row in simulated_day[topic.name].to_pylist()
    ]
    random.Random(0).shuffle(messages)
    both(settings, messages)
    comparison = audited(settings)
    assert comparison.told == []
    assert comparison.users == 150 and comparison.items == 400


def test_an_imported_day_gives_the_same_features(settings, simulated_day):
    lake = Lake(settings.place.lake)
    for topic in FOLDED:
        lake.append(topic.name, simulated_day[topic.name])
    with only_one(settings.place.stream):
        state = State(settings.place.stream)
        imports = LakeLog(lake, state)
        while imports.follow_imports():
            pass
        state.checkpoint(now_s=START.timestamp())
        state.close()
    comparison = audited(settings)
    assert comparison.told == []
    assert comparison.users == 150 and comparison.items == 400


def test_a_state_built_anew_from_the_lake_is_the_same(settings):
    both(settings, drawn_log(random.Random(8), 600))
    for name in ("data.mdb", "lock.mdb"):
        (settings.place.stream / name).unlink()
    with only_one(settings.place.stream):
        open_state(settings.place.stream, Lake(settings.place.lake)).close()
    assert audited(settings).told == []


def lacking(log: list, rng: random.Random):
    """An engaged action of the log, once in it, that the stream shall not see."""
    ids = [m.event_id for m in log if TOPIC_OF[type(m)] is INTERACTIONS]
    acts = [m for m in log if TOPIC_OF[type(m)] is INTERACTIONS and ids.count(m.event_id) == 1]
    return rng.choice([m for m in acts if str(m.event_type) in ("like", "share", "comment")])


def test_an_event_that_the_stream_lacks_is_named(settings):
    rng = random.Random(4)
    log = drawn_log(rng, 900)
    missed = lacking(log, rng)
    both(settings, log, to_stream=[m for m in log if m is not missed])
    comparison = audited(settings)
    assert {(d.kind, d.entity) for d in comparison.told} == {
        ("user", missed.user_id),
        ("item", missed.item_id),
    }
    name = next(c.value for c in Counter if c.value.startswith(str(missed.event_type)))
    told = {(d.kind, d.feature): d for d in comparison.told}
    for kind in ("user", "item"):
        parting = told[kind, f"{name}_forever"].parting
        assert parting is not None
        assert (parting.event_id, parting.at) == (missed.event_id, missed.accepted_at)
        assert parting.why == "the stream lacks it"


def test_an_event_that_the_stream_counted_twice_is_named(settings):
    rng = random.Random(6)
    log = drawn_log(rng, 500)
    twice = lacking(log, rng)
    both(settings, log)

    def count_again(state: State) -> None:
        key = key_bytes(item_key(twice.item_id))
        row = state.items.places(state.reader, [key], [twice.item_id])
        counter = next(c for c in Counter if c.value.startswith(str(twice.event_type)))
        at_us = np.array([microseconds(twice.accepted_at)])
        moves = Moves(row, np.array([COUNTER_INDEX[counter]]), np.ones(1), at_us)
        fold(state.items.value, state.items.at_us, moves)
        state.items.touch(row)

    change(settings, count_again)
    comparison = audited(settings)
    [forever] = [d for d in comparison.told if d.feature.endswith("s_forever")]
    assert forever.entity == twice.item_id and forever.stream == forever.batch + 1
    assert forever.parting is not None
    assert (forever.parting.event_id, forever.parting.why) == (
        twice.event_id,
        "the stream counted it twice",
    )


def test_a_reader_whom_only_one_engine_knows_is_told(settings):
    both(settings, drawn_log(random.Random(1), 300))
    change(settings, lambda state: state.profiles.put(user_key("u1"), b""))
    change(settings, lambda state: state.histories.put(state.reader, user_key("u1"), b""))
    comparison = audited(settings)
    assert {d.entity for d in comparison.told} == {"u1"}
    assert "hist_item_key" in {d.feature for d in comparison.told}


def test_the_report_names_feature_entity_both_values_and_the_event(settings):
    rng = random.Random(4)
    log = drawn_log(rng, 300)
    missed = lacking(log, rng)
    both(settings, log, to_stream=[m for m in log if m is not missed])
    comparison = audited(settings)
    console = Console(record=True, width=200)
    console.print(table(comparison))
    shown = console.export_text()
    assert missed.event_id in shown and missed.user_id in shown
    report = as_json(comparison)
    assert report["num_differences"] == comparison.differences > 0
    assert {"kind", "entity", "feature", "stream", "batch", "parting"} <= {
        *report["differences"][0]
    }
    assert summary(comparison).endswith(f"{comparison.differences} differ")


def test_a_lake_behind_the_state_is_waited_for_and_then_told(settings):
    both(settings, drawn_log(random.Random(1), 50))
    change(settings, lambda state: state.positions.update({("interactions", 0): 10_000}))
    with pytest.raises(AuditError, match="records of the state are not in the lake"):
        audited(settings)


def test_without_a_state_there_is_nothing_to_compare(settings):
    with pytest.raises(AuditError, match="holds no state"):
        audited(settings)


def test_movielens_imported_gives_the_same_features(settings):
    folder = os.environ.get(DATA_VARIABLE)
    if folder is None:
        pytest.skip(f"{DATA_VARIABLE} names no folder with MovieLens 100K")
    environment = os.environ | {"FEEDRANK_HOME": str(settings.home)}
    command = [sys.executable, "-m", "feedrank_cli", "import", "movielens", folder]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    with only_one(settings.place.stream):
        state = State(settings.place.stream)
        imports = LakeLog(Lake(settings.place.lake), state)
        while imports.follow_imports():
            pass
        state.checkpoint(now_s=START.timestamp())
        state.close()
    comparison = audited(settings)
    assert comparison.told == []
    assert (comparison.users, comparison.items) == (943, 1682)


@pytest.mark.parametrize("seed", range(2))
def test_a_state_built_from_a_lake_with_everything_that_is_hard_is_the_same(settings, seed):
    records, lake = world(seed), Lake(settings.place.lake)
    for topic in FOLDED:
        rows = getattr(records, topic.name)
        lake.append(topic.name, rows, positions={0: len(rows)} if rows else None)
    with only_one(settings.place.stream):
        open_state(settings.place.stream, lake).close()
    comparison = audited(settings)
    assert comparison.told == []
    assert comparison.users > 5 and comparison.items > 20
