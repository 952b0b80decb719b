"""The intake under pressure: bounded memory, 429 before growth, 503 when the bus is away."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import orjson
import psutil
import pytest
from feedrank_core.contracts.topics import INTERACTIONS, Topic
from feedrank_core.runtime.bus import BusUnavailableError, Outgoing
from feedrank_core.runtime.bus_memory import MemoryBus, MemoryPublisher
from feedrank_core.runtime.bus_redis import RedisBus
from feedrank_ingestion.app import create_intake
from integration.bus_contract import Outage, read
from integration.conftest import Server
from processes import HOST, Service, free_port

MAX_WAITING_BYTES = 4 << 20
AMPLIFICATION = 5
"""A waiting body is held as it came, as records, and as what the records are made of."""
ALLOCATOR_BYTES = 30 << 20
ROOM_BYTES = 1 << 20
PATIENCE_S = 10


def batch(number: int, num_events: int = 100) -> dict[str, Any]:
    events = [
        {
            "event_id": f"e{number}-{i}",
            "event_type": "click",
            "user_id": f"u{i}",
            "item_id": "i1",
            "occurred_at": datetime.now(UTC).isoformat(),
        }
        for i in range(num_events)
    ]
    return {"events": events}


class SlowBus(MemoryBus):
    """Takes nothing until `go` is set; `fails` makes it an outage then."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.go, self.fails = Event(), Event(), False

    def publisher(self) -> MemoryPublisher:
        publisher = super().publisher()
        publish = publisher.publish

        def held_back(topic: Topic, records: Sequence[Outgoing]) -> None:
            self.asked.set()
            self.go.wait(PATIENCE_S)
            if self.fails:
                raise BusUnavailableError("away")
            publish(topic, records)

        publisher.publish = held_back
        return publisher


@asynccontextmanager
async def intake(
    bus: MemoryBus, max_waiting_bytes: int, max_body_s: float = PATIENCE_S
) -> AsyncIterator[httpx.AsyncClient]:
    app = create_intake(bus, max_waiting_bytes=max_waiting_bytes, max_body_s=max_body_s)
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://intake") as client,
    ):
        yield client


def counted(exposition: str, reason: str) -> float:
    name = f'feedrank_ingestion_turned_away_total{{reason="{reason}"}} '
    return sum(float(line.removeprefix(name)) for line in exposition.splitlines() if name in line)


async def waiting_bytes(client: httpx.AsyncClient) -> float:
    exposition = (await client.get("/metrics")).text
    return float(exposition.split("\nfeedrank_ingestion_waiting_bytes ")[1].split("\n")[0])


async def test_more_than_may_wait_is_429_and_what_waits_is_held() -> None:
    bus = SlowBus()
    async with intake(bus, 40_000) as client:
        first = asyncio.create_task(client.post("/v1/events", json=batch(1)))
        await asyncio.to_thread(bus.asked.wait)
        answer = await client.post("/v1/events", json=batch(2, 300))
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.headers["content-type"] == "application/problem+json"
        assert counted((await client.get("/metrics")).text, "capacity") == 1
        bus.go.set()
        assert (await first).status_code == 202
        assert (await client.post("/v1/events", json=batch(2, 300))).status_code == 202
        assert await waiting_bytes(client) == 0
    assert sum(bus.end_offsets(INTERACTIONS).values()) == 400


async def test_a_request_larger_than_the_room_is_taken_when_nothing_waits() -> None:
    bus = MemoryBus()
    async with intake(bus, 1) as client:
        assert (await client.post("/v1/events", json=batch(1))).status_code == 202


async def test_what_is_being_read_holds_its_room_and_the_answer_says_so() -> None:
    begun, go = asyncio.Event(), asyncio.Event()
    body = orjson.dumps(batch(1))

    async def slowly() -> AsyncIterator[bytes]:
        yield body[:1]
        begun.set()
        await go.wait()
        yield body[1:]

    async with intake(MemoryBus(), 1) as client:
        first = asyncio.create_task(client.post("/v1/events", content=slowly()))
        await begun.wait()
        answer = await client.post("/v1/events", json=batch(2))
        assert answer.status_code == 429
        assert "being read" in answer.json()["detail"]
        go.set()
        assert (await first).status_code == 202


async def test_a_body_that_stalls_is_408_and_its_room_is_free_again() -> None:
    async def stalling() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    async with intake(MemoryBus(), 1, max_body_s=0.05) as client:
        answer = await client.post("/v1/events", content=stalling())
        assert answer.status_code == 408
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["detail"] == "the body did not arrive within 0.05 s"
        assert counted((await client.get("/metrics")).text, "slow") == 1
        assert await waiting_bytes(client) == 0
        assert (await client.post("/v1/events", json=batch(1))).status_code == 202


async def test_what_waits_when_the_bus_goes_away_is_503_at_once() -> None:
    bus = SlowBus()
    async with intake(bus, MAX_WAITING_BYTES) as client:
        # Beyond one group of the publisher, so that some wait behind the one that fails.
        bodies = [orjson.dumps(batch(n, 1000)) for n in range(12)]
        waiting = asyncio.gather(*(client.post("/v1/events", content=b) for b in bodies))
        await asyncio.to_thread(bus.asked.wait)
        while await waiting_bytes(client) < sum(map(len, bodies)):
            await asyncio.sleep(0)
        bus.fails = True
        bus.go.set()
        answers = await waiting
        assert {a.status_code for a in answers} == {503}
        assert all(a.headers["retry-after"] for a in answers)
        assert counted((await client.get("/metrics")).text, "bus") == 12
        bus.fails = False
        assert (await client.post("/v1/events", json=batch(1))).status_code == 202


def test_the_server_ends_a_connection_whose_body_stalls(bus_url: str, tmp_path: Path) -> None:
    port = free_port()
    settings = {"home": str(tmp_path), "bus_url": bus_url, "ingestion_port": str(port)}
    settings["intake_body_seconds"] = "0.2"
    service = Service(tmp_path, "feedrank_ingestion", "serve", port=port, **settings)
    with service.running():
        service.until_ready()
        for path in ("events", "users/u1:merge"):
            with socket.create_connection((HOST, port), PATIENCE_S) as stalled:
                head = f"POST /v1/{path} HTTP/1.1\r\nHost: intake\r\nContent-Length: 1048576"
                stalled.sendall(f"{head}\r\nContent-Type: application/json\r\n\r\n{{".encode())
                answer = b"".join(iter(partial(stalled.recv, 1 << 16), b""))
            assert answer.startswith(b"HTTP/1.1 408 ")


@pytest.fixture(params=["redis", pytest.param("kafka", marks=pytest.mark.long)])
def stoppable(request: pytest.FixtureRequest) -> tuple[str, Outage]:
    """Where a bus listens, and what makes it hang."""
    if request.param == "redis":
        server = request.getfixturevalue("bus_server")
        return server.url, server.hang
    broker = request.getfixturevalue("own_broker")
    if broker is None:
        pytest.skip("the broker of KAFKA_BOOTSTRAP is not ours to stop")
    return request.getfixturevalue("kafka_url"), broker.hang


@asynccontextmanager
async def own_process(
    bus_url: str, folder: Path
) -> AsyncIterator[tuple[psutil.Process, httpx.AsyncClient]]:
    """An intake in a process of its own that is ready, and its client."""
    port = free_port()
    settings = {"home": str(folder), "bus_url": bus_url, "ingestion_port": str(port)}
    settings["intake_waiting_bytes"] = str(MAX_WAITING_BYTES)
    service = Service(folder, "feedrank_ingestion", "serve", port=port, **settings)
    with service.running():
        service.until_ready()
        assert service.process is not None
        async with httpx.AsyncClient(base_url=service.url, timeout=30) as client:
            yield psutil.Process(service.process.pid), client


async def test_memory_is_bounded_while_the_bus_is_stopped(
    stoppable: tuple[str, Outage], tmp_path: Path
) -> None:
    bus_url, hang = stoppable
    async with own_process(bus_url, tmp_path) as (process, client):
        bodies = [batch(n, 1000) for n in range(6)]
        for body in bodies:
            assert (await client.post("/v1/events", json=body)).status_code == 202
        before = process.memory_info().rss
        seen: dict[int, int] = {}
        peak = before

        async def press() -> None:
            nonlocal peak
            for body in bodies:
                answer = await client.post("/v1/events", json=body)
                seen[answer.status_code] = seen.get(answer.status_code, 0) + 1
                peak = max(peak, process.memory_info().rss)
                assert answer.status_code == 202 or answer.headers["retry-after"]

        with hang():
            await asyncio.gather(*(press() for _ in range(64)))
        assert set(seen) == {429, 503}, seen
        assert peak - before < AMPLIFICATION * MAX_WAITING_BYTES + ALLOCATOR_BYTES
        assert (await client.post("/v1/events", json=batch(99))).status_code == 202


async def test_a_full_bus_is_503_and_takes_events_again_once_what_was_read_has_gone(
    bus_server: Server, tmp_path: Path
) -> None:
    async with own_process(bus_server.url, tmp_path) as (_, client):
        with closing(RedisBus(bus_server.url)) as bus, filled_up(bus_server):
            taken: set[str] = set()
            while (answer := await client.post("/v1/events", json=batch(len(taken)))).is_success:
                taken |= {f"e{len(taken)}-{i}" for i in range(100)}
            assert taken
            for refused in (answer, await client.post("/v1/events", json=batch(-1))):
                assert refused.status_code == 503
                assert refused.headers["retry-after"]
            with bus.consumer([INTERACTIONS], group="sink", member="m") as sink:
                held = read(sink, len(taken))
            assert {orjson.loads(r.value or b"")["event_id"] for r in held} == taken
            later = datetime.now(UTC) + INTERACTIONS.retention + timedelta(days=1)
            assert bus.trim(INTERACTIONS, now=later, behind=["sink"]) == len(held) == len(taken)
            assert (await client.post("/v1/events", json=batch(-1))).status_code == 202


@contextmanager
def filled_up(server: Server) -> Iterator[None]:
    """The server has room for a few requests and no more."""
    with server.client() as client:
        used: Any = client.info("memory")
        client.config_set("maxmemory", used["used_memory"] + ROOM_BYTES)
        try:
            yield
        finally:
            client.config_set("maxmemory", 0)
