"""Lake, bus and stream on a file system that is really full: a small one in memory."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Thread
from typing import Any

import httpx
import orjson
import pytest
from feedrank_core.contracts.events import Interaction
from feedrank_core.contracts.topics import INTERACTIONS
from feedrank_core.contracts.user_changes import STREAM_GROUP
from feedrank_core.runtime.bus import Outgoing
from feedrank_core.runtime.bus_memory import MemoryBus
from feedrank_core.runtime.bus_redis import RedisBus
from feedrank_core.runtime.lake import Lake, LakeError
from feedrank_core.runtime.redis_clients import sync_client
from feedrank_core.runtime.valkey import Role
from feedrank_feature_store.adapters.memory_online import MemoryOnline
from processes import Server, Service, free_port, until
from stream_running import publish, started

T0 = datetime(2026, 1, 2, tzinfo=UTC)
DISK_BYTES = 4 << 20
PAGE_BYTES = 4096


class SmallDisk:
    """A file system of DISK_BYTES that a test may fill and empty again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / "filler"

    def fill(self, *, room_pages: int = 0) -> None:
        """Leave this many pages free."""
        stat = os.statvfs(self.folder)
        self._filler.write_bytes(bytes((stat.f_bavail - room_pages) * stat.f_frsize))

    def free(self) -> None:
        self._filler.unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    options = f"size={DISK_BYTES}"
    try:
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "feedrank-test", folder],
            capture_output=True,
            text=True,
        )
    except FileNotFoundError:
        pytest.skip("this machine has no mount command")
    if mounted.returncode:
        pytest.skip(f"a file system may not be mounted here: {mounted.stderr.strip()}")
    yield SmallDisk(folder)
    subprocess.run(["umount", folder], check=True)


def event(n: int) -> dict[str, Any]:
    return {
        "event_id": f"e{n}",
        "event_type": "click",
        "user_id": f"u{n}",
        "item_id": f"i{n % 50}",
        "occurred_at": T0,
        "accepted_at": T0,
    }


def event_ids(root: Path) -> list[str]:
    found = Lake(root).connect().execute("SELECT event_id FROM _interactions").fetchall()
    return sorted(event_id for (event_id,) in found)


@pytest.mark.parametrize("room_pages", [0, 1, 2, 4, 8, 12, 16])
def test_an_append_that_runs_out_of_space_names_the_table_and_keeps_nothing(disk, room_pages):
    root = disk.folder / "lake"
    lake = Lake(root)
    lake.append("interactions", [event(0) | {"topic_partition": 0, "topic_offset": 0}],
                positions={0: 1})  # fmt: skip
    rows = [event(n) | {"topic_partition": 0, "topic_offset": n} for n in range(1, 3000)]
    disk.fill(room_pages=room_pages)
    with pytest.raises(LakeError) as full:
        lake.append("interactions", rows, positions={0: 3000})
    said = str(full.value)
    assert said.startswith(f"lake table {root / 'interactions'} cannot be written")
    assert "No space left on device" in said and "free space" in said
    assert said.replace("↳", "").isprintable()
    assert event_ids(root) == ["e0"]
    assert lake.positions("interactions") == {0: 1}
    disk.free()
    assert lake.append("interactions", rows, positions={0: 3000}) == 2999
    assert event_ids(root) == sorted(f"e{n}" for n in range(3000))


def test_the_sink_waits_for_space_says_so_and_loses_and_repeats_nothing(
    disk: SmallDisk, bus_server: Server, tmp_path: Path
):
    bus, port = RedisBus(bus_server.url), free_port()
    root = disk.folder / "lake"
    sink = Service(
        tmp_path,
        "feedrank_ingestion",
        "lake-sink",
        port=port,
        home=str(disk.folder),
        bus_url=bus_server.url,
        lake_sink_port=str(port),
        lake_sink_seconds="0.1",
    )

    def publish(first: int, last: int) -> None:
        sent = [Outgoing(f"u{n}", orjson.dumps(event(n))) for n in range(first, last)]
        bus.publisher().publish(INTERACTIONS, sent)

    def in_lake() -> int:
        return sum(Lake(root).positions("interactions").values())

    with sink.running():
        publish(0, 100)
        until(lambda: in_lake() == 100)
        disk.fill()
        publish(100, 3000)
        until(lambda: "No space left on device" in sink.readiness()[1])
        status, said = sink.readiness()
        assert status == 503
        assert f"{root / 'interactions'} cannot be written" in said
        assert in_lake() == 100
        assert sum(bus.committed(INTERACTIONS, group="lake_sink").values()) == 100
        disk.free()
        until(lambda: in_lake() == 3000)
        sink.until_ready()
    bus.close()
    assert event_ids(root) == sorted(f"e{n}" for n in range(3000))


def test_a_bus_without_space_takes_no_more_and_has_all_it_took(disk: SmallDisk, tmp_path: Path):
    (disk.folder / "bus").mkdir()
    server, port = Server(Role.BUS, disk.folder / "bus"), free_port()
    intake = Service(
        tmp_path,
        "feedrank_ingestion",
        "serve",
        port=port,
        home=str(tmp_path),
        bus_url=server.url,
        ingestion_port=str(port),
    )
    sent: list[str] = []

    def send(number: int) -> int:
        events = [event(n) | {"occurred_at": T0.isoformat()} for n in range(number, number + 100)]
        for one in events:
            del one["accepted_at"]
        answer = httpx.post(f"{intake.url}/v1/events", json={"events": events}, timeout=30)
        if answer.status_code == 202:
            sent.extend(one["event_id"] for one in events)
        return answer.status_code

    server.start()
    with intake.running():
        intake.until_ready()
        assert send(0) == 202
        disk.fill()
        until(lambda: send(100 + len(sent)) == 503)
        # A bus that syncs before it answers ends where it cannot; `up` starts it again.
        until(server.has_ended)
        disk.free()
        server.start()
        until(lambda: send(100 + len(sent)) == 202)
        server.kill()
        server.start()
        intake.until_ready()
    bus = RedisBus(server.url)
    with bus.consumer([INTERACTIONS], group="test", member="m") as consumer:
        records = consumer.poll(max_records=10 * len(sent), timeout_s=5.0)
    bus.close()
    server.stop()
    assert {orjson.loads(r.value or b"")["event_id"] for r in records} >= set(sent)


def test_a_stream_without_space_says_so_and_shows_all_it_folded_after_a_kill(
    disk: SmallDisk, cache_url: str
):
    bus, online = MemoryBus(), MemoryOnline()
    bus.create_topics()
    clicks = [Interaction.model_validate(event(n)) for n in range(600)]

    def num_saved() -> int:
        return sum(bus.committed(INTERACTIONS, group=STREAM_GROUP).values())

    with sync_client(cache_url) as cache:
        with started(disk.folder, bus, cache, online) as running:
            follower, stopping = running.follower, Event()
            publish(bus, *clicks[:100])
            running.fold()
            follower.save()
            running.show()
            disk.fill()
            publish(bus, *clicks[100:])
            follower._checkpoint_s = 0.0
            thread = Thread(target=follower.run, args=(stopping,))
            thread.start()
            until(lambda: follower.trouble == "the state cannot be saved")
            assert num_saved() == 100
            disk.free()
            until(lambda: num_saved() == len(clicks))
            stopping.set()
            thread.join()
        assert len(online.held) == 100
        with started(disk.folder, bus, cache, online) as running:
            running.show()
    shown = {user: online.read(user)["clicks_forever"] for user in online.held}
    assert shown == {click.user_id: 1.0 for click in clicks}
