"""Simulated history as Parquet: contracts, order, chance."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feedrank_core.contracts.topics import TOPICS
from feedrank_core.runtime.lake_schema import contract_table
from feedrank_simulator import plan
from feedrank_simulator.bulk import Written, write_history
from feedrank_simulator.history import TargetError
from feedrank_simulator.parts import TABLES
from feedrank_simulator.plan import PlanError
from feedrank_simulator.rendering import item_index, item_table, item_tables
from feedrank_simulator.world import World

END = datetime(2026, 1, 15, tzinfo=UTC)


@pytest.fixture(scope="module")
def world() -> World:
    return World.make(5, 250, 500, days=5, end=END)


@pytest.fixture(scope="module")
def history(world: World, tmp_path_factory: pytest.TempPathFactory) -> dict[str, pa.Table]:
    out = tmp_path_factory.mktemp("history")
    write_history(world, out, seed=2)
    return {name: pq.read_table(out / f"{name}.parquet") for name in TABLES}


def test_the_same_seed_writes_the_same_bytes_and_another_seed_other_events(
    world: World, tmp_path: Path
) -> None:
    for folder, seed in (("a", 2), ("b", 2), ("c", 3)):
        write_history(world, tmp_path / folder, seed=seed)
    a, b, c = (digests(tmp_path / folder) for folder in "abc")
    assert a == b
    assert (
        a["impressions.parquet/part-00000.parquet"] != c["impressions.parquet/part-00000.parquet"]
    )
    assert a["items.parquet/part-00000.parquet"] == c["items.parquet/part-00000.parquet"]


@pytest.mark.parametrize("topic", TABLES)
def test_every_row_validates_against_its_contract(history: dict[str, pa.Table], topic: str) -> None:
    model = TOPICS[topic].model
    rows = history[topic].to_pylist()
    assert rows
    for row in rows:
        model.model_validate(unflattened(row))


@pytest.mark.parametrize("topic", TABLES)
def test_the_lake_takes_every_table_as_it_is(history: dict[str, pa.Table], topic: str) -> None:
    landed = contract_table(topic, history[topic])
    assert landed.num_rows == history[topic].num_rows
    for name in history[topic].column_names:
        assert landed[name].null_count == history[topic][name].null_count
    assert landed["date"].null_count == 0


def test_events_name_known_items_and_readers_and_join_to_their_slate(
    history: dict[str, pa.Table],
) -> None:
    items = set(history["items"]["item_id"].to_pylist())
    users = set(history["users"]["user_id"].to_pylist())
    slates = {
        row["request_id"]: (row, [i["item_id"] for i in json.loads(row["items_json"])])
        for row in history["slates"].to_pylist()
    }
    impressions = set()
    for event in history["impressions"].to_pylist():
        slate, shown = slates[event["request_id"]]
        assert shown[event["position"]] == event["item_id"]
        assert slate["user_id"] == event["user_id"]
        assert slate["served_at"] < event["occurred_at"] < event["accepted_at"] <= END
        assert event["item_id"] in items
        assert event["user_id"] in users
        impressions.add((event["request_id"], event["position"], event["item_id"]))
    for event in history["interactions"].to_pylist():
        assert (event["request_id"], event["position"], event["item_id"]) in impressions
        assert event["occurred_at"] < event["accepted_at"] <= END


def test_event_ids_are_unique(history: dict[str, pa.Table]) -> None:
    ids = history["impressions"]["event_id"].to_pylist()
    ids += history["interactions"]["event_id"].to_pylist()
    assert len(set(ids)) == len(ids)


def test_rows_are_in_the_order_of_acceptance(history: dict[str, pa.Table]) -> None:
    for name in ("impressions", "interactions", "slates"):
        moments = history[name]["accepted_at"].cast(pa.int64()).to_numpy()
        assert (np.diff(moments) >= 0).all()


def test_nobody_is_shown_an_item_twice_or_before_it_exists(history: dict[str, pa.Table]) -> None:
    rows = history["impressions"].to_pylist()
    pairs = [(row["user_id"], row["item_id"]) for row in rows]
    assert len(set(pairs)) == len(pairs)
    created = dict(
        zip(
            history["items"]["item_id"].to_pylist(),
            history["items"]["created_at"].to_pylist(),
            strict=True,
        )
    )
    assert all(created[row["item_id"]] <= row["occurred_at"] for row in rows)


def test_click_rates_by_position_match_the_true_probabilities(
    world: World, history: dict[str, pa.Table]
) -> None:
    served = {r["request_id"]: r["served_at"] for r in history["slates"].to_pylist()}
    rows = history["impressions"].to_pylist()
    users = np.array([int(r["user_id"].removeprefix("user-")) for r in rows])
    items = np.array([item_index(r["item_id"]) for r in rows])
    at = np.array([served[r["request_id"]].timestamp() for r in rows])
    position = np.array([r["position"] for r in rows])
    chance = world.click_probability(users, items, at, position)
    clicked_at = {
        (r["request_id"], r["position"])
        for r in history["interactions"].to_pylist()
        if r["event_type"] == "click"
    }
    clicked = np.array([(r["request_id"], r["position"]) in clicked_at for r in rows])
    for places in (position < 2, (position >= 2) & (position < 8), position >= 8):
        expected = chance[places].sum()
        spread = np.sqrt((chance[places] * (1 - chance[places])).sum())
        assert abs(clicked[places].sum() - expected) < 4 * spread
    assert clicked[position == 0].mean() > 1.7 * clicked[position >= 10].mean()


def test_every_kind_of_event_occurs(tmp_path: Path) -> None:
    world = World.make(1, 400, 500, days=7, end=END)
    write_history(world, tmp_path, seed=1)
    kinds = set(pq.read_table(tmp_path / "interactions.parquet")["event_type"].to_pylist())
    assert kinds == {"view", "click", "like", "share", "comment", "follow", "hide", "report"}


def test_the_target_of_events_is_met_within_a_fifth(world: World, tmp_path: Path) -> None:
    written = write_history(world, tmp_path, seed=4, events_target=20_000)
    assert 16_000 < written.events < 24_000


def test_a_target_beyond_what_readers_can_do_is_refused_with_what_they_can(
    world: World, tmp_path: Path
) -> None:
    with pytest.raises(TargetError, match=r"10,000,000 events are more than 250 readers do in 5"):
        write_history(world, tmp_path, seed=4, events_target=10_000_000)


def test_a_block_of_readers_is_written_before_the_next_begins(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "READERS_PER_BLOCK", 100)
    calls: list[tuple[int, int]] = []
    write_history(world, tmp_path, seed=1, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(done, 5) for done in range(6)]  # items, readers, three blocks of events
    assert len(list((tmp_path / "impressions.parquet").glob("*.parquet"))) == 3


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "READERS_PER_BLOCK", 60)


@pytest.mark.usefixtures("small_blocks")
def test_more_workers_write_the_same_bytes(world: World, tmp_path: Path) -> None:
    alone, together = tmp_path / "alone", tmp_path / "together"
    write_history(world, alone, seed=2)
    write_history(world, together, seed=2, workers=2)
    assert digests(alone) == digests(together)
    assert len(digests(alone)) == 2 + 3 * 5


@pytest.mark.usefixtures("small_blocks")
def test_a_second_run_makes_only_what_is_missing(world: World, tmp_path: Path) -> None:
    first = write_history(world, tmp_path, seed=2)
    before = digests(tmp_path)
    (tmp_path / "slates.parquet" / "part-00002.parquet").unlink()
    left = tmp_path / "users.parquet" / ".part-00000.parquet.12.unfinished"
    left.write_bytes(b"half")
    calls: list[tuple[int, int]] = []
    again = write_history(
        world, tmp_path, seed=2, progress=lambda done, total: calls.append((done, total))
    )
    assert calls == [(6, 7), (7, 7)]
    assert digests(tmp_path) == before
    assert not left.exists()
    assert again == first == Written.count(tmp_path)


def test_a_folder_with_another_history_is_refused_with_what_differs(
    world: World, tmp_path: Path
) -> None:
    write_history(world, tmp_path, seed=2)
    before = digests(tmp_path)
    with pytest.raises(PlanError, match=r"history with seed 2 \(not 3\); name another folder"):
        write_history(world, tmp_path, seed=3)
    with pytest.raises(PlanError, match=r"world's users 250 \(not 20\)"):
        write_history(World.make(5, 20, 500, days=5, end=END), tmp_path, seed=2)
    assert digests(tmp_path) == before


def test_a_folder_that_another_run_writes_to_is_refused(world: World, tmp_path: Path) -> None:
    def again(done: int, total: int) -> None:
        with pytest.raises(PlanError, match="another run is writing there"):
            write_history(world, tmp_path, seed=2)

    write_history(world, tmp_path, seed=2, progress=again)


def test_texts_and_vectors_tell_the_topic(world: World) -> None:
    table = pa.concat_tables(item_tables(world))
    category = np.array(table["category"].to_pylist())
    vectors = np.array(table["text_vector"].to_pylist())
    same = category[:, None] == category[None, :]
    np.fill_diagonal(same, False)
    cosine = vectors @ vectors.T
    assert cosine[same].mean() > 0.15 + cosine[~same].mean()
    words = [set(text.lower().split()) for text in table["text"].to_pylist()]
    shared = np.array([[len(a & b) for b in words[:200]] for a in words[:200]])
    assert shared[same[:200, :200]].mean() > 1.3 * shared[~same[:200, :200]].mean()


def test_an_item_looks_the_same_whichever_rows_are_asked_for(world: World) -> None:
    whole = pa.concat_tables(item_tables(world))
    some = item_table(world, np.array([3, 77, 499]))
    assert some.to_pylist() == whole.take([3, 77, 499]).to_pylist()


def unflattened(row: dict) -> dict:
    """A contract's fields again: JSON text columns parsed."""
    return {
        name.removesuffix("_json"): json.loads(value) if name.endswith("_json") else value
        for name, value in row.items()
    }


def digests(out: Path) -> dict[str, str]:
    """Every file of a history by its path."""
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.glob("*.parquet/*"))
    }
