"""Orders through intake, sink and lake: receipts fill, the bus forgets, crashes cost nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
import redis
from feedrank_core.contracts.topics import SLATES, USER_CHANGES, USERS
from feedrank_core.contracts.user_changes import ORDER_GROUPS
from feedrank_core.runtime.bus import Bus, Outgoing, Record
from feedrank_core.runtime.bus_memory import MemoryBus
from feedrank_core.runtime.bus_redis import RedisBus
from feedrank_core.runtime.change_reports import Reporter
from feedrank_core.runtime.dead_letters import publish_dead_letter
from feedrank_core.runtime.lake import Lake
from feedrank_core.runtime.lake_erasure import LakeEraser
from feedrank_core.runtime.metrics import Metrics
from feedrank_core.runtime.subjects import Subjects
from feedrank_core.runtime.valkey import Role
from feedrank_ingestion import bus_eraser
from feedrank_ingestion.app import create_intake
from feedrank_ingestion.bus_eraser import BusEraser
from feedrank_ingestion.lake_sink import GROUP, SINK_TOPICS, LakeSink
from feedrank_ingestion.order_follower import OrderFollower

NEEDLE, KNOWN = "reader-needle", "reader-known"
PATIENCE_S = 20.0
LATE = timedelta(hours=1)


def click(user: str, event_id: str) -> dict[str, Any]:
    event = {"event_id": event_id, "event_type": "click", "user_id": user, "item_id": "i1"}
    return event | {"occurred_at": datetime.now(UTC).isoformat()}


class World:
    """The intake's client, and sink and order follower that a test steps by hand."""

    def __init__(self, bus: Bus, root: Path, client: httpx.AsyncClient) -> None:
        self.bus, self.root, self.client = bus, root, client
        self.ahead = timedelta(0)
        """How much later it is for whoever makes the bus forget."""
        self._stack = ExitStack()
        self.begin()

    def begin(self) -> None:
        """Sink and follower as new processes have them."""
        metrics = Metrics("ingestion")
        lake = Lake(self.root)
        self.sink = LakeSink(
            bus=self.bus, lake=Lake(self.root), metrics=metrics, max_rows=100, max_seconds=0.05
        )
        eraser = LakeEraser(lake, grace=timedelta(0))
        self.follower = OrderFollower(bus=self.bus, lake=lake, eraser=eraser, metrics=metrics)
        reading = self._stack.enter_context
        self._rows = reading(self.bus.consumer(SINK_TOPICS, group=GROUP, member="s"))
        self._orders = reading(self.bus.consumer([USER_CHANGES], group=ORDER_GROUPS[0], member="o"))
        self._reporter = reading(Reporter(self.bus))
        self._forgetting = BusEraser(
            self.bus,
            self._reporter,
            eraser.subjects,
            clock=lambda: datetime.now(UTC) + self.ahead,
        )
        self._forgetting.resume()

    def crash(self) -> None:
        """What these processes had in memory is gone."""
        self.end()
        self.begin()

    def end(self) -> None:
        self._stack.close()

    def sink_all(self) -> None:
        while self.sink.step(self._rows):
            pass

    def follow(self) -> None:
        self.follower.step(self._orders, self._reporter, self._forgetting)

    def others_read(self) -> None:
        """The feature store's readers of the orders and of the events, in short."""
        folded = [t for t in SINK_TOPICS if "feature_store" in t.readers]
        for group in ORDER_GROUPS[1:]:
            with self.bus.consumer([USER_CHANGES, *folded], group=group, member="f") as consumer:
                while records := consumer.poll(max_records=100, timeout_s=0.2):
                    consumer.commit(records)

    async def send(self, *events: dict[str, Any]) -> None:
        answer = await self.client.post("/v1/events", json={"events": events})
        assert (answer.status_code, answer.json()["rejected"]) == (202, [])

    async def receipt(self, user: str) -> dict[str, str]:
        answer = await self.client.get(f"/v1/users/{user}/erasure")
        return {line["store"]: line["state"] for line in answer.json()["stores"]}

    async def until(self, is_so: Callable[[dict[str, str]], bool], user: str = NEEDLE) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not is_so(await self.receipt(user)):
            assert time.monotonic() < deadline, await self.receipt(user)
            await asyncio.to_thread(self.follow)

    def clicks(self) -> dict[str, int]:
        counted = "SELECT user_id, count(*) FROM interactions GROUP BY 1"
        return dict(Lake(self.root).connect().execute(counted).fetchall())


@asynccontextmanager
async def world_on(bus: Bus, root: Path) -> AsyncIterator[World]:
    app = create_intake(bus, subjects=Subjects.of_lake(root))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://intake") as client,
    ):
        world = World(bus, root, client)
        yield world
        world.end()


@pytest.fixture(autouse=True)
def _eager(monkeypatch: pytest.MonkeyPatch) -> None:
    be_eager(monkeypatch)


def be_eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is late here unless a test says so."""
    monkeypatch.setattr(bus_eraser, "EVERY_S", 0.0)
    monkeypatch.setattr(bus_eraser, "LATE", timedelta(0))


async def test_an_erased_reader_is_in_no_key_of_the_bus_and_in_no_file(
    tmp_path: Path, make_server: Any
) -> None:
    server = make_server(Role.BUS, tmp_path / "bus")
    (tmp_path / "bus").mkdir()
    server.start()
    bus = RedisBus(server.url)
    try:
        async with world_on(bus, tmp_path / "lake") as world:
            await world.send(click(NEEDLE, "e1"), click(KNOWN, "e2"), click("anon", "e3"))
            await world.client.put(f"/v1/users/{NEEDLE}", json={"country": "DE"})
            await world.client.post("/v1/users/anon:merge", json={"into": NEEDLE})
            refused = Record(USER_CHANGES.name, 0, 0, NEEDLE, b"no order", datetime.now(UTC))
            publish_dead_letter(bus.publisher(), refused, "of no use", refused_by="test")
            world.sink_all()
            world.follow()
            answer = await world.client.delete(f"/v1/users/{NEEDLE}")
            assert answer.status_code == 202
            assert {line["state"] for line in answer.json()["stores"]} == {"pending"}
            await world.send(click(KNOWN, "e4"))
            world.follow()
            assert (await world.receipt(NEEDLE))["lake"] == "pending"
            world.sink_all()
            await world.until(lambda stores: stores["lake"] == "done")
            assert (await world.receipt(NEEDLE))["bus"] == "pending"
            world.others_read()
            await world.until(lambda stores: stores["bus"] == "done")
            by_id = await world.client.get(f"/v1/receipts/{answer.json()['receipt_id']}")
            assert by_id.json()["subject"] == answer.json()["subject"]
            assert world.clicks() == {KNOWN: 2}
        assert _keys_with(server.url, NEEDLE) == []
        held = [p for p in tmp_path.rglob("*") if p.is_file()]
        assert [p for p in held if NEEDLE.encode() in p.read_bytes()] == []
        bus.close()
    finally:
        server.stop()


async def test_a_replay_from_the_first_record_does_not_bring_a_reader_back(
    bus_url: str, tmp_path: Path
) -> None:
    bus = RedisBus(bus_url)
    async with world_on(bus, tmp_path / "lake") as world:
        await world.send(click(NEEDLE, "e1"), click(KNOWN, "e2"))
        await world.client.delete(f"/v1/users/{NEEDLE}")
        await world.send(click(NEEDLE, "e3"))
        world.follow()
        world.sink_all()
        await world.until(lambda stores: stores["lake"] == "done")
        assert world.clicks() == {KNOWN: 1, NEEDLE: 1}
        for topic in SINK_TOPICS:
            for partition in range(topic.partitions):
                world._rows.seek(partition, 0, topic=topic.name)
        world.sink_all()
        assert world.clicks() == {KNOWN: 1, NEEDLE: 1}
        fresh = LakeSink(
            bus=bus,
            lake=world.follower._lake,
            metrics=Metrics("ingestion"),
            max_rows=100,
            max_seconds=0.05,
        )
        # A writer of another name has no positions: it takes every record as new.
        with bus.consumer(SINK_TOPICS, group="replay", member="r") as consumer:
            batch = fresh._read(consumer)
            for topic, rows in batch.rows.items():
                positions = batch.positions[topic]
                world.follower._lake.append(topic, rows, positions=positions, writer="replay")
        assert world.clicks() == {KNOWN: 1, NEEDLE: 1}
    bus.close()


@pytest.mark.parametrize("crash_after", ["apply", "settle", "report", "order removed"])
async def test_a_follower_that_dies_in_between_is_completed_by_the_next(
    bus_url: str, tmp_path: Path, monkeypatch: Any, crash_after: str
) -> None:
    bus = RedisBus(bus_url)

    class Crash(BaseException):
        pass

    def dies(call: Any) -> Any:
        def run(*args: Any, **kwargs: Any) -> Any:
            call(*args, **kwargs)
            raise Crash

        return run

    async with world_on(bus, tmp_path / "lake") as world:
        await world.send(click(NEEDLE, "e1"), click(KNOWN, "e2"))
        await world.client.delete(f"/v1/users/{NEEDLE}")
        world.sink_all()
        world.others_read()
        where = {
            "apply": (LakeEraser, "apply"),
            "settle": (LakeEraser, "settle"),
            "report": (Reporter, "publish"),
            "order removed": (RedisBus, "remove"),
        }[crash_after]
        monkeypatch.setattr(*where, dies(getattr(*where)))
        with pytest.raises(Crash):
            while True:
                world.follow()
        monkeypatch.undo()
        be_eager(monkeypatch)
        world.crash()
        await world.until(lambda stores: stores["lake"] == stores["bus"] == "done")
        assert world.clicks() == {KNOWN: 1}
        assert _keys_with(bus_url, NEEDLE) == []
    bus.close()


async def test_what_comes_late_from_before_an_order_is_forgotten_too(
    bus_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slate that waited for the bus, another intake's profile, a letter made after the order."""
    monkeypatch.setattr(bus_eraser, "LATE", LATE)
    bus = RedisBus(bus_url)
    async with world_on(bus, tmp_path / "lake") as world:
        before = {"user_id": NEEDLE, "accepted_at": datetime.now(UTC).isoformat()}
        await world.client.delete(f"/v1/users/{NEEDLE}")
        world.follow()
        publisher = bus.publisher()
        for topic in (SLATES, USERS):
            publisher.publish(topic, [Outgoing(NEEDLE, orjson.dumps(before | {"unknown": 1}))])
        publisher.publish(USERS, [Outgoing(NEEDLE, orjson.dumps(before))])
        publisher.close()
        await world.client.put(f"/v1/users/{KNOWN}", json={"country": "DE"})
        world.sink_all()
        world.others_read()
        await world.until(lambda stores: stores["lake"] == "done")
        assert (await world.receipt(NEEDLE))["bus"] == "pending"
        world.ahead = LATE
        await world.until(lambda stores: stores["bus"] == "done")
        assert _keys_with(bus_url, NEEDLE) == []
        assert _keys_with(bus_url, KNOWN)
    bus.close()


async def test_a_reader_who_came_back_keeps_what_they_sent_since(
    bus_url: str, tmp_path: Path
) -> None:
    bus = RedisBus(bus_url)
    async with world_on(bus, tmp_path / "lake") as world:
        await world.client.delete(f"/v1/users/{NEEDLE}")
        world.follow()
        await world.client.put(f"/v1/users/{NEEDLE}", json={"country": "DE"})
        world.sink_all()
        world.others_read()
        await world.until(lambda stores: stores["bus"] == "done")
        assert b"h:users" in _keys_with(bus_url, NEEDLE)
    bus.close()


async def test_a_merge_is_answered_and_carried_out(bus_url: str, tmp_path: Path) -> None:
    bus = RedisBus(bus_url)
    async with world_on(bus, tmp_path / "lake") as world:
        await world.send(click("anon", "e1"), click(KNOWN, "e2"))
        answer = await world.client.post("/v1/users/anon:merge", json={"into": KNOWN})
        assert answer.status_code == 202
        await world.send(click("anon", "e3"))
        world.follow()
        world.sink_all()
        deadline, path = (
            time.monotonic() + PATIENCE_S,
            f"/v1/receipts/{answer.json()['receipt_id']}",
        )
        states: dict[str, str] = {}
        while states.get("lake") != "done":
            assert time.monotonic() < deadline
            world.follow()
            lines = (await world.client.get(path)).json()["stores"]
            states = {line["store"]: line["state"] for line in lines}
        assert "bus" not in states
        assert world.clicks() == {KNOWN: 2, "anon": 1}
    bus.close()


async def test_a_bus_that_cannot_forget_says_when_its_records_expire(tmp_path: Path) -> None:
    bus = MemoryBus()
    async with world_on(bus, tmp_path / "lake") as world:
        await world.client.delete(f"/v1/users/{NEEDLE}")
        world.follow()
        world.sink_all()
        await world.until(lambda stores: stores["bus"] == "expires")
        receipt = (await world.client.get(f"/v1/users/{NEEDLE}/erasure")).json()
        [line] = [line for line in receipt["stores"] if line["store"] == "bus"]
        kept = datetime.fromisoformat(line["expires_at"]) - datetime.fromisoformat(
            receipt["accepted_at"]
        )
        assert kept == bus_eraser.FORGOTTEN_BY


@pytest.mark.parametrize(
    ("body", "field"),
    [({"into": "anon"}, "into"), ({}, "into"), ({"into": ""}, "into"), ({"into": 7}, "into")],
)
async def test_a_merge_with_nobody_or_with_oneself_is_refused(
    tmp_path: Path, body: dict[str, Any], field: str
) -> None:
    async with world_on(MemoryBus(), tmp_path / "lake") as world:
        answer = await world.client.post("/v1/users/anon:merge", json=body)
        assert (answer.status_code, answer.json()["field"]) == (422, field)
        assert (await world.client.get("/v1/users/anon/erasure")).status_code == 404
        assert (await world.client.get("/v1/receipts/none")).status_code == 404


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'{"into": "\xff"}'])
async def test_a_merge_that_is_no_json_is_refused_like_every_other_body(
    tmp_path: Path, body: bytes
) -> None:
    async with world_on(MemoryBus(), tmp_path / "lake") as world:
        answer = await world.client.post("/v1/users/anon:merge", content=body)
        assert (answer.status_code, answer.json()["field"]) == (400, "body")


async def test_a_merge_needs_no_content_type_just_as_no_other_order_does(tmp_path: Path) -> None:
    async with world_on(MemoryBus(), tmp_path / "lake") as world:
        answer = await world.client.post("/v1/users/anon:merge", content=b'{"into": "known"}')
        assert (answer.status_code, answer.json()["kind"]) == (202, "merge")


async def test_an_order_is_refused_while_the_bus_is_away(tmp_path: Path) -> None:
    bus = MemoryBus()
    async with world_on(bus, tmp_path / "lake") as world:
        bus.is_down = True
        answer = await world.client.delete(f"/v1/users/{NEEDLE}")
        assert answer.status_code == 503
        bus.is_down = False
        assert (await world.client.get(f"/v1/users/{NEEDLE}/erasure")).status_code == 404


def _keys_with(url: str, text: str) -> list[bytes]:
    """Keys of the server that hold the text, in their names or in what they hold."""
    client = redis.Redis.from_url(url)
    found = []
    for key in client.scan_iter():
        readers: dict[bytes, Callable[[], object]] = {
            b"stream": lambda key=key: client.xrange(key),
            b"hash": lambda key=key: client.hgetall(key),
            b"string": lambda key=key: client.get(key),
            b"zset": lambda key=key: client.zrange(key, 0, -1),
        }
        if text in repr((key, readers[client.type(key)]())):  # pyright: ignore[reportArgumentType]
            found.append(key)
    client.close()
    return found
