"""The intake against a bare endpoint: events a second in batches of 100, and flat memory."""

from __future__ import annotations

import asyncio
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx
import orjson
from feedrank_core.runtime.home import Home
from feedrank_core.runtime.valkey import Role, valkey_command

from feedrank_cli.bench.report import BenchCannotRun, Report

NAME = "intake"
HELP = "events/s taken in batches of 100 and held by the bus, against a bare endpoint"
BATCH = 100
CONNECTIONS = 8
QUICK_EVENTS, FULL_EVENTS = 200_000, 5_000_000
FLOOR_EVENTS = 200_000
WARM_UP_EVENTS = 50_000
"""Memory is compared from here on: caches and allocator pools have filled by then."""
MIN_EVENTS_PER_S = 5_000
MAX_RSS_GROWTH = 0.10
START_S = 30.0

_FLOOR = """
from fastapi import FastAPI, Request, Response
from feedrank_core.runtime.serving import serve
app = FastAPI()
@app.post("/v1/events")
async def events(request: Request) -> Response:
    await request.body()
    return Response(b'{{}}', status_code=202, media_type="application/json")
@app.get("/readyz")
async def readyz() -> Response:
    return Response(b"ok")
serve(app, "127.0.0.1", {port})
"""


@dataclass(frozen=True)
class Load:
    """What one load measured."""

    events_per_s: float
    p99_ms: float
    refused: int


def run(home: Home, *, quick: bool, seed: int) -> Report:
    """Load the floor, then the intake, with one generator on the same cores.

    Everything runs in a folder of its own; `home` is left alone. Raises: BenchCannotRun.
    """
    report = Report(NAME, seed)
    num_events = QUICK_EVENTS if quick else FULL_EVENTS
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="feedrank-bench-")))
        floor_port, intake_port, bus_port = (_free_port() for _ in range(3))
        environment = _environment(folder, bus_port, intake_port)
        _start(stack, valkey_command(Role.BUS, port=bus_port, folder=folder), environment)
        _start(stack, [sys.executable, "-c", _FLOOR.format(port=floor_port)], environment)
        command = [sys.executable, "-m", "feedrank_ingestion", "serve"]
        intake = _start(stack, command, environment)
        for port in (floor_port, intake_port):
            _wait_ready(port)
        floor = asyncio.run(_load(floor_port, FLOOR_EVENTS, seed))
        warm = asyncio.run(_load(intake_port, WARM_UP_EVENTS, seed + 1))
        rss_before = _rss_bytes(intake.pid)
        taken = asyncio.run(_load(intake_port, num_events, seed + 2))
        rss_after = _rss_bytes(intake.pid)
    report.figure("events", num_events)
    report.figure("events_per_s", taken.events_per_s)
    report.figure("request_p99_ms", taken.p99_ms)
    report.figure("ratio_to_floor", taken.events_per_s / floor.events_per_s)
    report.figure("refused", taken.refused + warm.refused)
    report.figure("rss_mb", rss_after / 1e6)
    report.figure("rss_growth", rss_after / rss_before - 1)
    report.floor("events_per_s", floor.events_per_s)
    report.floor("request_p99_ms", floor.p99_ms)
    report.bound("events_per_s", ">=", MIN_EVENTS_PER_S)
    report.bound("rss_growth", "<=", MAX_RSS_GROWTH)
    report.bound("refused", "==", 0)
    return report


async def _load(port: int, num_events: int, seed: int) -> Load:
    """Send batches over a few connections, as fast as they are answered (closed loop)."""
    left = iter(range(num_events // BATCH))
    now = datetime.now(UTC).isoformat()
    times: list[float] = []
    refused = 0

    async def connection(client: httpx.AsyncClient) -> None:
        nonlocal refused
        for number in left:
            body = _body(number, seed, now)
            started = time.perf_counter()
            answer = await client.post("/v1/events", content=body)
            times.append(time.perf_counter() - started)
            if answer.status_code != 202 or b'"index"' in answer.content:
                refused += 1

    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
        started = time.perf_counter()
        await asyncio.gather(*(connection(client) for _ in range(CONNECTIONS)))
        elapsed = time.perf_counter() - started
    return Load(num_events / elapsed, statistics.quantiles(times, n=100)[98] * 1e3, refused)


def _body(number: int, seed: int, now: str) -> bytes:
    kinds = ("impression", "click", "view", "like")
    events = []
    for i in range(number * BATCH, (number + 1) * BATCH):
        event = {
            "event_id": f"{seed}-{i}",
            "event_type": kinds[i % 4],
            "user_id": f"u{i * 7919 % 100_000}",
            "item_id": f"i{i * 104_729 % 1_000_000}",
            "request_id": f"r{number}",
            "session_id": f"s{number % 5_000}",
            "position": i % 20,
            "occurred_at": now,
        }
        events.append(event | {"dwell_s": 4.2} if i % 4 == 2 else event)
    return orjson.dumps({"events": events})


def _environment(folder: Path, bus_port: int, intake_port: int) -> dict[str, str]:
    return os.environ | {
        "FEEDRANK_HOME": str(folder),
        "FEEDRANK_BUS_URL": f"redis://127.0.0.1:{bus_port}/0",
        "FEEDRANK_INGESTION_PORT": str(intake_port),
    }


def _start(
    stack: ExitStack, command: list[str], environment: dict[str, str]
) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    stack.callback(process.wait)
    stack.callback(process.terminate)
    return process


def _wait_ready(port: int) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise BenchCannotRun(f"nothing was ready on port {port} within {START_S:.0f} s")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _rss_bytes(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
