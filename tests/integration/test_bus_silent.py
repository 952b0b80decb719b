"""A server that takes connections and never says a word: every caller is told in time."""

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from threading import Thread

import httpx
import pytest
from feedrank_core.contracts.topics import VERDICTS
from feedrank_core.runtime.bus import Bus, BusUnavailableError
from feedrank_core.runtime.bus_kafka import KafkaBus
from feedrank_core.runtime.bus_redis import RedisBus
from feedrank_ingestion.app import create_intake
from integration.bus_contract import outgoing

TIMEOUT_S = 1.2
PATIENCE_S = 5 * TIMEOUT_S


@pytest.fixture
def silent_port() -> Iterator[int]:
    taken: list[socket.socket] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def take() -> None:
        with contextlib.suppress(OSError):
            while True:
                taken.append(listener.accept()[0])

    thread = Thread(target=take)
    thread.start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()
    for one in taken:
        one.close()


@pytest.fixture(params=["kafka", "redis"])
def bus(request: pytest.FixtureRequest, silent_port: int) -> Iterator[KafkaBus | RedisBus]:
    url = f"{request.param}://127.0.0.1:{silent_port}"
    bus = KafkaBus(url, timeout_s=TIMEOUT_S) if request.param == "kafka" else RedisBus(url)
    yield bus
    bus.close()


def test_every_call_is_an_error_in_time(bus: Bus) -> None:
    publisher = bus.publisher()

    def read() -> None:
        with bus.consumer([VERDICTS], group="g", member="a") as consumer:
            consumer.poll(max_records=1, timeout_s=0.1)

    calls: list[Callable[[], object]] = [
        bus.ping,
        bus.create_topics,
        lambda: publisher.publish(VERDICTS, outgoing(1)),
        lambda: bus.end_offsets(VERDICTS),
        lambda: next(bus.broadcast(VERDICTS)),
        read,
    ]
    for number, call in enumerate(calls):
        start = time.monotonic()
        with pytest.raises(BusUnavailableError):
            call()
        assert time.monotonic() - start < PATIENCE_S, number
    publisher.close()


async def test_the_intake_answers_503_and_is_not_ready(bus: Bus) -> None:
    app = create_intake(bus)
    event = {
        "event_id": "e1",
        "event_type": "click",
        "user_id": "u1",
        "item_id": "i1",
        "occurred_at": "2026-01-01T00:00:00Z",
    }
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://intake") as client,
    ):
        answer = await client.post("/v1/events", json={"events": [event]})
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
        assert (await client.get("/readyz")).status_code == 503
