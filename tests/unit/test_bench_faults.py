"""The count of what faults cost is itself right: what is lost, doubled or sent again is seen."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import RawTestServer
from feedrank_cli.bench import data_path, event_load
from feedrank_cli.bench.data_path import STANDSTILL_S, DataPath
from feedrank_cli.bench.event_load import BATCH, Ledger, Load, batch_body, send
from feedrank_cli.bench.faults import compare, quantile
from feedrank_cli.bench.report import BenchCannotRun
from feedrank_cli.up import BusKind
from feedrank_core.runtime.lake import Lake
from processes import free_port

LOAD = Load("http://intake", seed=5)
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def rows(number: int, *, offset: int) -> dict[str, list[dict[str, object]]]:
    events = orjson.loads(batch_body(number, LOAD))["events"]
    found: dict[str, list[dict[str, object]]] = {"impressions": [], "interactions": []}
    for event in events:
        kept = found["impressions" if event["event_type"] == "impression" else "interactions"]
        place = {"topic_partition": 0, "topic_offset": offset + len(kept)}
        kept.append(event | place | {"accepted_at": NOW, "occurred_at": NOW})
    return found


def store(lake: Lake, number: int, *, offset: int, leave_out: int = 0) -> None:
    for topic, kept in rows(number, offset=offset).items():
        lake.append(topic, kept[leave_out:])


def test_a_batch_is_the_same_events_whenever_it_is_sent() -> None:
    first, again = (orjson.loads(batch_body(3, LOAD))["events"] for _ in range(2))
    assert [e["event_id"] for e in first] == [e["event_id"] for e in again]
    assert len({e["event_id"] for e in first}) == BATCH


def test_what_is_stored_once_is_neither_lost_nor_doubled(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    store(lake, 0, offset=0)
    store(lake, 1, offset=100)
    outcome = compare(Ledger(accepted={0}, abandoned={1, 2}), tmp_path)
    assert (outcome.accepted, outcome.abandoned, outcome.stored) == (100, 200, 200)
    assert (outcome.lost, outcome.doubled, outcome.resent) == (0, 0, 0)


def test_what_is_missing_sent_again_or_twice_in_a_table_is_counted(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    store(lake, 0, offset=0, leave_out=2)
    store(lake, 1, offset=100)
    store(lake, 1, offset=200)
    store(lake, 2, offset=300)
    store(lake, 2, offset=300)
    outcome = compare(Ledger(accepted={0, 1, 2}), tmp_path)
    assert (outcome.lost, outcome.resent, outcome.doubled) == (4, 100, 100)


def test_events_that_nobody_sent_are_an_error(tmp_path: Path) -> None:
    store(Lake(tmp_path), 7, offset=0)
    with pytest.raises(AssertionError, match="7"):
        compare(Ledger(accepted=set()), tmp_path)


RESET = 0
"""In the place of a status: the connection is cut."""


async def test_a_batch_is_sent_until_answered_or_given_up_where_its_fate_is_unknown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(event_load, "RETRY_S", 0.0)
    answers = {0: [429, 202], 1: [RESET, 202], 2: [503, 202]}

    async def answer(request: web.BaseRequest) -> web.Response:
        events = (await request.json(loads=orjson.loads))["events"]
        status = answers[int(events[0]["event_id"].split("-")[1]) // BATCH].pop(0)
        if status == RESET and request.transport is not None:
            request.transport.abort()
        return web.Response(status=status or 202)

    port = free_port()
    ledger = Ledger()
    load = Load(f"http://127.0.0.1:{port}", seed=5, connections=1, abandon=1.0)
    sending = asyncio.create_task(send(load, ledger, num_batches=3))
    while not ledger.retries:  # nobody listens yet: that is no reason to give a batch up
        await asyncio.sleep(0)
    async with RawTestServer(answer, port=port):
        await sending
    assert (ledger.accepted, ledger.abandoned) == ({0}, {1, 2})


def test_a_quantile_is_one_of_the_values() -> None:
    assert quantile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert quantile([float(n) for n in range(100)], 0.99) == 99.0


@pytest.fixture
def waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[list[int]], float]:
    """Wait for a lake that is so far behind at each look, half a standstill apart."""

    def wait(behind: list[int]) -> float:
        path, now, looks = DataPath(tmp_path, BusKind.REDIS), [0.0], iter(behind)

        def sleep(_seconds: float) -> None:
            now[0] += STANDSTILL_S / 2

        clock = SimpleNamespace(monotonic=lambda: now[0], sleep=sleep)
        monkeypatch.setattr(data_path, "time", clock)
        monkeypatch.setattr(path, "lag", lambda: next(looks))
        path.wait_drained()
        return now[0]

    return wait


def test_a_lake_that_draws_nearer_is_waited_for_however_long(waits) -> None:
    assert waits([*range(50, 0, -1), 0]) == 25 * STANDSTILL_S


def test_a_lake_that_stands_still_is_given_up(waits) -> None:
    with pytest.raises(BenchCannotRun, match="7 events are not in the lake"):
        waits([9, 7, 8, 7, 7, 7, 7])
