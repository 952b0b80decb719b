"""Posts events to an intake, keeps trying until it answers, and notes what came of each batch."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count

import aiohttp
import orjson
from feedrank_core.runtime.progress import Tick

BATCH = 100
KINDS = ("impression", "click", "view", "like")
NOT_SENT, SILENCE = -1, 0
"""In the place of a status: nobody listened, or nobody answered."""
ANSWER_S = 20.0
RETRY_S = 0.05
"""Far below what Retry-After asks for: a measurement wants the instant of recovery."""


@dataclass
class Ledger:
    """The client's own record. A batch is `accepted` once it was answered 202.

    `abandoned` batches got no answer and were not sent again: they may be stored or not.
    Times are monotonic.
    """

    accepted: set[int] = field(default_factory=set)
    abandoned: set[int] = field(default_factory=set)
    seconds: list[float] = field(default_factory=list)
    retries: int = 0
    refused: int = 0
    last_answered_at: float = 0.0


@dataclass(frozen=True)
class Load:
    """What to send: `rate` in events a second (None: as fast as answers come).

    `num_users` readers act by turns; a request without an answer is given up with the
    probability `abandon`, else sent again until it is answered.
    """

    url: str
    seed: int
    num_users: int = 100_000
    rate: float | None = None
    connections: int = 8
    abandon: float = 0.0


async def send(
    load: Load,
    ledger: Ledger,
    *,
    first: int = 0,
    num_batches: int | None = None,
    stop: asyncio.Event | None = None,
    tick: Tick = lambda count, note="": None,
) -> None:
    """Send batches from number `first` on, `num_batches` of them or until told to stop.

    `tick` hears of each that is settled.
    """
    numbers = iter(range(first, first + num_batches)) if num_batches is not None else count(first)
    started, sent = time.monotonic(), 0
    chance = random.Random(load.seed)

    async def connection(client: aiohttp.ClientSession) -> None:
        nonlocal sent
        for number in numbers:
            if stop is not None and stop.is_set():
                return
            if load.rate is not None:
                due = started + sent * BATCH / load.rate
                sent += 1
                await asyncio.sleep(max(0.0, due - time.monotonic()))
            await _settle(client, load, ledger, number, chance)
            tick(1)

    async with aiohttp.ClientSession(
        load.url, timeout=aiohttp.ClientTimeout(total=ANSWER_S)
    ) as client:
        await asyncio.gather(*(connection(client) for _ in range(load.connections)))


async def _settle(
    client: aiohttp.ClientSession, load: Load, ledger: Ledger, number: int, chance: random.Random
) -> None:
    """Send one batch until it is answered, or give it up."""
    body = batch_body(number, load)
    while True:
        sent_at = time.monotonic()
        try:
            async with client.post("/v1/events", data=body) as answer:
                status, content = answer.status, await answer.read()
        except aiohttp.ClientConnectorError:
            status = NOT_SENT
        except (aiohttp.ClientError, TimeoutError):
            status = SILENCE
        if status == 202:
            ledger.accepted.add(number)
            ledger.last_answered_at = time.monotonic()
            ledger.seconds.append(ledger.last_answered_at - sent_at)
            ledger.refused += b'"index"' in content
            return
        ledger.retries += 1
        # 429 says that nothing was looked at; of any other answer nothing may be assumed.
        if status not in (NOT_SENT, 429) and chance.random() < load.abandon:
            ledger.abandoned.add(number)
            return
        await asyncio.sleep(RETRY_S)


def batch_body(number: int, load: Load) -> bytes:
    """Batch `number` of a load: the same bytes but for the instant, whenever it is sent."""
    now = datetime.now(UTC).isoformat()
    events = []
    for i in range(number * BATCH, (number + 1) * BATCH):
        kind = KINDS[i % len(KINDS)]
        event = {
            "event_id": f"{load.seed}-{i}",
            "event_type": kind,
            "user_id": f"u{i * 7919 % load.num_users}",
            "item_id": f"i{i * 104_729 % 1_000_000}",
            "request_id": f"r{number}",
            "session_id": f"s{number % 5_000}",
            "position": i % 20,
            "occurred_at": now,
        }
        events.append(event | {"dwell_s": 4.2} if kind == "view" else event)
    return orjson.dumps({"events": events})
