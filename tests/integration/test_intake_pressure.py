"""The intake under pressure: bounded memory, 429 before growth, 503 when the bus is away."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
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
from feedrank_ingestion.app import create_intake
from integration.conftest import Server
from processes import HOST, Service, free_port

MAX_WAITING_BYTES = 4 << 20
AMPLIFICATION = 5
"""A waiting body is held as it came, as records, and as what the records are made of."""
ALLOCATOR_BYTES = 30 << 20
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


@pytest.fixture
def process(bus_server: Server, tmp_path: Path) -> Iterator[tuple[psutil.Process, str]]:
    """An intake in a process of its own, and its address."""
    port = free_port()
    settings = {
        "FEEDRANK_HOME": str(tmp_path),
        "FEEDRANK_BUS_URL": bus_server.url,
        "FEEDRANK_INGESTION_PORT": str(port),
        "FEEDRANK_INTAKE_WAITING_BYTES": str(MAX_WAITING_BYTES),
    }
    with (tmp_path / "log").open("wb") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "feedrank_ingestion", "serve"],
            env=os.environ | settings,
            stdout=log,
            stderr=log,
        )
    try:
        yield psutil.Process(child.pid), f"http://127.0.0.1:{port}"
    finally:
        child.terminate()
        child.wait()


async def test_memory_is_bounded_while_the_bus_is_stopped(
    bus_server: Server, process: tuple[psutil.Process, str]
) -> None:
    intake_process, url = process
    async with httpx.AsyncClient(base_url=url, timeout=30) as client:
        while not await is_ready(client):
            await asyncio.sleep(0.1)
        bodies = [batch(n, 1000) for n in range(6)]
        for body in bodies:
            assert (await client.post("/v1/events", json=body)).status_code == 202
        before = intake_process.memory_info().rss
        seen: dict[int, int] = {}
        peak = before

        async def press() -> None:
            nonlocal peak
            for body in bodies:
                answer = await client.post("/v1/events", json=body)
                seen[answer.status_code] = seen.get(answer.status_code, 0) + 1
                peak = max(peak, intake_process.memory_info().rss)
                assert answer.status_code == 202 or answer.headers["retry-after"]

        with bus_server.hang():
            await asyncio.gather(*(press() for _ in range(64)))
        assert set(seen) == {429, 503}, seen
        assert peak - before < AMPLIFICATION * MAX_WAITING_BYTES + ALLOCATOR_BYTES
        assert (await client.post("/v1/events", json=batch(99))).status_code == 202


async def is_ready(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/readyz")).status_code == 200
    except httpx.TransportError:
        return False
