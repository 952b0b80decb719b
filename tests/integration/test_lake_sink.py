"""The lake sink: every record once in the lake, whatever fails between."""

from __future__ import annotations

import base64
import json
import time
import tracemalloc
from datetime import datetime, timedelta
from pathlib import Path

import orjson
import pytest
from feedrank_core.contracts.topics import (
    INTERACTIONS,
    ITEMS,
    SLATES,
    Topic,
    with_dead_letters,
)
from feedrank_core.contracts.user_changes import ChangeKind, UserChange
from feedrank_core.runtime.bus import Bus, BusUnavailableError, Outgoing, Record
from feedrank_core.runtime.bus_memory import MemoryBus
from feedrank_core.runtime.lake import Lake, LakeError
from feedrank_core.runtime.lake_erasure import LakeEraser
from feedrank_core.runtime.lake_errors import WrongKeyError
from feedrank_core.runtime.metrics import Metrics
from feedrank_ingestion import lake_sink
from feedrank_ingestion.collect import CollectTimeoutError, collect
from feedrank_ingestion.lake_batch import Batch
from feedrank_ingestion.lake_sink import (
    GROUP,
    SINK_TOPICS,
    LakeSink,
    ReplacedBusError,
    missing,
)
from poison_events import EVENT, POISON, T0


@pytest.fixture
def bus() -> MemoryBus:
    bus = MemoryBus()
    bus.create_topics()
    return bus


PLACE = {"item_id": "i1", "position": 0, "source": "cached", "scores": {}, "value": 0.0}


def event(n: int) -> Outgoing:
    user = f"u{n % 5}"
    return Outgoing(user, orjson.dumps(EVENT | {"event_id": f"e{n}", "user_id": user}))


def slate() -> Outgoing:
    ids = dict.fromkeys(("request_id", "session_id", "user_id"), "s1")
    times = {"served_at": T0.isoformat(), "accepted_at": T0.isoformat()}
    rest = {"surface": "home", "bundle": None, "items": [PLACE], "schema_version": 1}
    return Outgoing("s1", orjson.dumps(ids | times | rest))


def dead_letters(bus: MemoryBus, topic: Topic) -> list[dict[str, str]]:
    twin = with_dead_letters()[topic.dlq]
    with bus.consumer([twin], group="t", member="m") as consumer:
        return [orjson.loads(r.value or b"") for r in consumer.poll(max_records=9, timeout_s=0)]


def sink_over(bus: Bus, root: Path) -> LakeSink:
    metrics = Metrics("ingestion")
    return LakeSink(bus=bus, lake=Lake(root), metrics=metrics, max_rows=100, max_seconds=0.05)


def step(bus: Bus, sink: LakeSink) -> int:
    with bus.consumer(SINK_TOPICS, group=GROUP, member="m") as consumer:
        sink._resume(consumer)
        return sink.step(consumer)


def num_rows(root: Path) -> int:
    row = Lake(root).connect().execute("SELECT count(*) FROM _interactions").fetchone()
    assert row is not None
    return row[0]


def test_what_the_bus_holds_reaches_the_lake_and_is_committed(
    bus: MemoryBus, tmp_path: Path
) -> None:
    bus.publisher().publish(INTERACTIONS, [event(n) for n in range(10)])
    assert step(bus, sink_over(bus, tmp_path)) == 10
    assert num_rows(tmp_path) == 10
    assert bus.committed(INTERACTIONS, group=GROUP) == bus.end_offsets(INTERACTIONS)


def test_a_crash_between_lake_and_commit_adds_no_row_twice(bus: MemoryBus, tmp_path: Path) -> None:
    bus.publisher().publish(INTERACTIONS, [event(n) for n in range(10)])
    with bus.consumer(SINK_TOPICS, group=GROUP, member="m") as consumer:
        sink = sink_over(bus, tmp_path)
        assert sink._keep(sink._read(consumer), consumer)
    bus.publisher().publish(INTERACTIONS, [event(n) for n in range(10, 13)])
    assert step(bus, sink_over(bus, tmp_path)) == 3
    assert num_rows(tmp_path) == 13


def lost(sink: LakeSink) -> float | None:
    labels = {"topic": INTERACTIONS.name}
    return sink._metrics.registry.get_sample_value("feedrank_ingestion_sink_lost_total", labels)


def test_what_was_dropped_unread_is_counted_once_and_passed_though_nothing_follows(
    bus: MemoryBus, tmp_path: Path
) -> None:
    bus.publisher().publish(INTERACTIONS, [event(n) for n in range(10)])
    assert step(bus, sink_over(bus, tmp_path)) == 10
    bus.publisher().publish(INTERACTIONS, [event(n) for n in range(10, 14)])
    bus.drop(INTERACTIONS, bus.end_offsets(INTERACTIONS))
    sink = sink_over(bus, tmp_path)
    assert step(bus, sink) == 0
    assert lost(sink) == 4
    assert missing(Lake(tmp_path), INTERACTIONS, bus.end_offsets(INTERACTIONS)) == {}
    bus.publisher().publish(INTERACTIONS, [event(n) for n in range(14, 19)])
    assert step(bus, sink) == 5
    assert lost(sink) == 4
    later = sink_over(bus, tmp_path)
    step(bus, later)
    assert lost(later) is None
    assert num_rows(tmp_path) == 15


def test_what_is_dropped_while_a_sink_lives_is_found_within_a_minute(
    bus: MemoryBus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = sink_over(bus, tmp_path)
    with bus.consumer(SINK_TOPICS, group=GROUP, member="m") as consumer:
        sink.step(consumer)
        bus.publisher().publish(INTERACTIONS, [event(n) for n in range(10)])
        bus.drop(INTERACTIONS, bus.end_offsets(INTERACTIONS))
        sink.step(consumer)
        assert lost(sink) is None
        soon = time.monotonic() + lake_sink.LOOK_EVERY_S
        monkeypatch.setattr(lake_sink.time, "monotonic", lambda: soon)
        sink._pass_what_was_dropped(set(consumer.lag()))
    assert lost(sink) == 10


def test_a_lake_that_was_emptied_passes_nothing_that_the_bus_still_holds(
    bus: MemoryBus, tmp_path: Path
) -> None:
    bus.publisher().publish(INTERACTIONS, [event(n) for n in range(10)])
    assert step(bus, sink_over(bus, tmp_path / "lake")) == 10
    again = sink_over(bus, tmp_path / "emptied")
    again._max_rows = 3
    assert [step(bus, again) for _ in range(4)] == [3, 3, 3, 1]
    assert num_rows(tmp_path / "emptied") == 10
    assert lost(again) is None


def test_a_record_that_cannot_be_used_goes_to_the_dead_letters(
    bus: MemoryBus, tmp_path: Path
) -> None:
    bad = [Outgoing("u1", b"{"), Outgoing("u1", b'{"event_id": ""}'), event(1)]
    bus.publisher().publish(INTERACTIONS, bad)
    assert step(bus, sink_over(bus, tmp_path)) == 3
    assert num_rows(tmp_path) == 1
    letters = dead_letters(bus, INTERACTIONS)
    assert len(letters) == 2
    assert "event_id" in letters[1]["reason"]
    assert letters[1]["refused_by"] == GROUP


def test_a_dead_letter_that_found_no_bus_is_written_with_the_batch_that_comes_again(
    bus: MemoryBus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus.publisher().publish(INTERACTIONS, [Outgoing("u1", b"{"), event(1)])

    def away(*_: object) -> None:
        raise BusUnavailableError("away")

    with bus.consumer(SINK_TOPICS, group=GROUP, member="m") as consumer:
        with monkeypatch.context() as patch, pytest.raises(BusUnavailableError):
            patch.setattr(consumer, "dead_letter", away)
            sink_over(bus, tmp_path).step(consumer)
        assert dead_letters(bus, INTERACTIONS) == []
    assert step(bus, sink_over(bus, tmp_path)) == 2
    assert len(dead_letters(bus, INTERACTIONS)) == 1
    assert num_rows(tmp_path) == 1


def test_records_that_come_again_within_a_batch_are_rows_once() -> None:
    batch = Batch()
    for offset in (0, 1, 2, 3, 4, 0, 1, 2):
        message = event(offset)
        batch.add(Record(INTERACTIONS.name, 0, offset, message.key, message.value, T0))
    assert [row["topic_offset"] for row in batch.rows[INTERACTIONS.name]] == [0, 1, 2, 3, 4]
    assert batch.positions == {INTERACTIONS.name: {0: 5}}


@pytest.mark.parametrize(
    ("topic", "change", "reason"),
    [
        *((INTERACTIONS, change, reason) for change, reason in POISON.values()),
        (SLATES, {"schema_version": 2}, "2 is newer than 1, which this release reads"),
        (SLATES, {"items": [PLACE | {"position": 1 << 64}]}, "items_json: "),
    ],
    ids=[*POISON, "slate version", "slate number"],
)
def test_a_poison_message_is_a_dead_letter_with_its_reason_and_stops_nobody(
    bus: MemoryBus, tmp_path: Path, topic: Topic, change: dict[str, object], reason: str
) -> None:
    good = orjson.loads(slate().value or b"") if topic is SLATES else EVENT
    poison = Outgoing("u1", json.dumps(good | change).encode())
    bus.publisher().publish(topic, [poison, Outgoing("u1", orjson.dumps(good))])
    assert step(bus, sink_over(bus, tmp_path)) == 2
    [letter] = dead_letters(bus, topic)
    assert reason in letter["reason"]
    assert base64.b64decode(letter["value"]) == poison.value
    assert bus.committed(topic, group=GROUP) == bus.end_offsets(topic)
    with Lake(tmp_path).connect() as con:
        assert con.execute(f"SELECT count(*) FROM {topic.name}").fetchone() == (1,)


def test_memory_does_not_grow_with_the_events_of_one_reader(bus: MemoryBus, tmp_path: Path) -> None:
    def drain(num_events: int) -> int:
        events = [event(5 * n) for n in range(num_events)]
        bus.publisher().publish(INTERACTIONS, events)
        metrics = Metrics("ingestion")
        sink = LakeSink(bus=bus, lake=Lake(tmp_path), metrics=metrics, max_rows=2000, max_seconds=5)
        tracemalloc.start()
        with bus.consumer(SINK_TOPICS, group=GROUP, member="m") as consumer:
            for _ in range(num_events // 2000):
                assert sink.step(consumer) == 2000
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return peak

    few = drain(4000)
    assert drain(40_000) < 3 * few


def test_a_full_disk_is_waited_out_and_nothing_is_committed_meanwhile(
    bus: MemoryBus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("feedrank_ingestion.lake_sink.FIRST_BACKOFF_S", 0.01)
    bus.publisher().publish(INTERACTIONS, [event(n) for n in range(4)])
    sink = sink_over(bus, tmp_path)
    append, failures = sink._lake.append, []

    def full(*args: object, **options: object) -> int:
        if len(failures) < 2:
            failures.append(bus.committed(INTERACTIONS, group=GROUP))
            raise LakeError("no space left on device")
        assert sink.ready() == "LakeError: no space left on device"
        return append(*args, **options)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(sink._lake, "append", full)
    assert step(bus, sink) == 4
    assert all(not any(committed.values()) for committed in failures)
    assert sink.ready() is None
    assert num_rows(tmp_path) == 4


def test_a_lost_key_of_the_lake_is_named_and_waited_for(
    bus: MemoryBus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("feedrank_ingestion.lake_sink.FIRST_BACKOFF_S", 0.01)
    order = UserChange(change_id="c" * 32, kind=ChangeKind.ERASE, user_id="u9", accepted_at=T0)
    LakeEraser(Lake(tmp_path), grace=timedelta(0)).apply([order])
    key = tmp_path / "erasure.key"
    kept = key.read_bytes()
    key.unlink()
    bus.publisher().publish(INTERACTIONS, [event(n) for n in range(4)])
    sink = sink_over(bus, tmp_path)
    append, troubles = sink._lake.append, []

    def watched(*args: object, **options: object) -> int:
        troubles.append(sink.ready())
        try:
            return append(*args, **options)  # pyright: ignore[reportArgumentType]
        except WrongKeyError:
            if len(troubles) == 2:
                key.write_bytes(kept)
            raise

    monkeypatch.setattr(sink._lake, "append", watched)
    assert step(bus, sink) == 4
    assert len(troubles) == 3
    assert all("erasure.key" in (trouble or "") for trouble in troubles[1:])
    assert num_rows(tmp_path) == 4
    assert dead_letters(bus, INTERACTIONS) == []


def test_a_lake_that_is_ahead_of_the_bus_stops_the_sink(bus: MemoryBus, tmp_path: Path) -> None:
    bus.publisher().publish(INTERACTIONS, [event(1)])
    step(bus, sink_over(bus, tmp_path))
    other = MemoryBus()
    other.create_topics()
    with pytest.raises(ReplacedBusError, match=r"interactions/\d"):
        step(other, sink_over(other, tmp_path))


def test_an_emptied_lake_is_filled_with_all_that_the_bus_holds(
    bus: MemoryBus, tmp_path: Path
) -> None:
    bus.publisher().publish(INTERACTIONS, [event(n) for n in range(10)])
    step(bus, sink_over(bus, tmp_path / "lost"))
    bus.publisher().publish(INTERACTIONS, [event(10)])
    assert step(bus, sink_over(bus, tmp_path / "new")) == 11
    assert num_rows(tmp_path / "new") == 11


def test_collect_pins_the_end_of_the_bus_once_the_lake_holds_it(
    bus: MemoryBus, tmp_path: Path
) -> None:
    bus.publisher().publish(INTERACTIONS, [event(n) for n in range(4)])
    run = tmp_path / "run"
    with pytest.raises(CollectTimeoutError, match="interactions 4"):
        collect(bus, Lake(tmp_path / "lake"), run, timeout_s=0.0)
    step(bus, sink_over(bus, tmp_path / "lake"))
    collect(bus, Lake(tmp_path / "lake"), run, timeout_s=0.0)
    pinned = orjson.loads((run / "offsets.json").read_bytes())
    assert datetime.fromisoformat(pinned["as_of"]).tzinfo is not None
    assert sum(pinned["offsets"].values()) == 4
    assert set(pinned["offsets"]) >= {f"{ITEMS.name}/0", f"{INTERACTIONS.name}/7"}
