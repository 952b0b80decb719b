"""Slates through the relay process to a real bus: held, healed, and no process left."""

from __future__ import annotations

import io
import os
import signal
import socket
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import orjson
import psutil
import pytest
import uvloop
from feedrank_core.contracts.events import Surface
from feedrank_core.contracts.topics import SLATES, Topic
from feedrank_core.runtime.bus import BusUnavailableError, Outgoing
from feedrank_core.runtime.bus_redis import RedisBus
from feedrank_core.runtime.valkey import Role
from feedrank_gateway.adapters.relay_process import RelayProcess
from feedrank_gateway.page import Page
from feedrank_gateway.slate_log import SlateLog
from feedrank_gateway.slate_relay import LENGTH_BYTES, Outcome, framed, length_of, outcome_of, relay
from processes import Server
from structlog.testing import capture_logs

NUM_SLATES = 40


@pytest.fixture
def server(tmp_path) -> Iterator[Server]:
    server = Server(Role.BUS, tmp_path)
    server.start()
    yield server
    server.stop()


def _slates(first: int, num: int) -> list[tuple[str, bytes]]:
    return [(f"u{i}", orjson.dumps({"request_id": str(i)})) for i in range(first, first + num)]


def _held(server: Server) -> dict[str, str]:
    """By reader, the request of the slate that the bus holds."""
    bus = RedisBus(server.url)
    with bus.consumer([SLATES], group="test", member="a") as consumer:
        found = []
        while records := consumer.poll(max_records=1_000, timeout_s=1.0):
            found += records
    bus.close()
    assert len(found) == len({r.key for r in found})
    return {r.key: orjson.loads(r.value or b"")["request_id"] for r in found}


async def test_what_was_published_is_held_by_the_bus(server):
    process = RelayProcess(server.url)
    await process.publish(_slates(0, NUM_SLATES))
    await process.publish(_slates(NUM_SLATES, 1))
    await process.close()
    assert _held(server) == {f"u{i}": str(i) for i in range(NUM_SLATES + 1)}


async def test_no_process_is_left_when_the_relay_is_closed(server):
    process = RelayProcess(server.url)
    await process.publish(_slates(0, 1))
    child = psutil.Process(_pid(process))
    assert child.nice() > psutil.Process().nice()
    await process.close()
    assert process.pid is None
    assert not child.is_running()


def test_the_relay_does_not_hold_the_port_that_its_worker_listens_on(server):
    async def listening() -> list[str]:
        process = RelayProcess(server.url)
        await process.publish(_slates(0, 1))
        try:
            return [c.status for c in psutil.Process(_pid(process)).connections()]
        finally:
            await process.close()

    with socket.create_server(("127.0.0.1", 0)) as port:
        port.set_inheritable(True)
        states = uvloop.run(listening())  # asyncio's own loop closes it by itself
    assert psutil.CONN_ESTABLISHED in states
    assert psutil.CONN_LISTEN not in states


async def test_the_relay_ends_with_its_worker_and_not_by_the_signals_meant_for_it(server):
    process = RelayProcess(server.url)
    await process.publish(_slates(0, 1))
    first = _pid(process)
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(first, number)
    await process.publish(_slates(1, 1))
    assert process.pid == first
    await process.close()


async def test_a_killed_relay_loses_no_slate_that_waits(server):
    process, dropped = RelayProcess(server.url), []
    log = SlateLog(process, capacity=1_000, on_dropped=dropped.append)
    await process.publish(_slates(0, 1))
    os.kill(_pid(process), signal.SIGKILL)
    log.start()
    for i in range(1, NUM_SLATES):
        log(_page(i))
    await log.close(flush_s=30.0)
    assert sorted(_held(server)) == sorted(f"u{i}" for i in range(NUM_SLATES))
    assert not dropped


async def test_a_relay_that_hangs_is_replaced(server):
    process = RelayProcess(server.url, answer_s=10.0)
    await process.publish(_slates(0, 1))
    first = _pid(process)
    os.kill(first, signal.SIGSTOP)
    process._answer_s = 0.1
    with pytest.raises(BusUnavailableError, match="starts anew"):
        await process.publish(_slates(1, 1))
    assert not psutil.pid_exists(first)
    process._answer_s = 30.0
    await process.publish(_slates(2, 1))
    await process.close()


async def test_a_bus_that_is_away_is_named_and_taken_up_again(server):
    process = RelayProcess(server.url)
    server.stop()
    with pytest.raises(BusUnavailableError, match=str(server.port)):
        await process.publish(_slates(0, 1))
    server.start()
    await process.publish(_slates(0, 1))
    await process.close()
    assert _held(server) == {"u0": "0"}


class _RefusingPublisher:
    """Takes nothing at its first call, everything later."""

    def __init__(self) -> None:
        self.calls: list[Sequence[Outgoing]] = []

    def publish(self, topic: Topic, records: Sequence[Outgoing]) -> None:
        self.calls.append(records)
        if len(self.calls) == 1:
            raise ValueError("too large")

    def close(self) -> None:
        pass


def test_what_the_bus_refuses_for_good_is_logged_and_said_so_and_the_relay_goes_on():
    batches = io.BytesIO(framed(_slates(0, 1)) + framed(_slates(1, 1)))
    outcomes, publisher = io.BytesIO(), _RefusingPublisher()
    with capture_logs() as logged:
        relay(batches, outcomes, lambda: publisher)
    assert [(line["event"], line["num"], line["exc_info"]) for line in logged] == [
        ("slates_refused", 1, True)
    ]
    said = outcomes.getvalue()
    end = LENGTH_BYTES + length_of(said[:LENGTH_BYTES])
    assert outcome_of(said[LENGTH_BYTES:end]) == Outcome("ValueError: too large", may_retry=False)
    assert outcome_of(said[end + LENGTH_BYTES :]) == Outcome()
    assert [record.key for record in publisher.calls[1]] == ["u1"]


def _pid(process: RelayProcess) -> int:
    assert process.pid is not None
    return process.pid


def _page(number: int) -> Page:
    return Page(
        request_id=str(number),
        session_id="0" * 32,
        user_id=f"u{number}",
        surface=Surface.HOME,
        served_at=datetime.now(UTC),
        bundle="b",
        degraded=(),
        num_before=0,
        places=[],
        next_cursor=None,
    )
