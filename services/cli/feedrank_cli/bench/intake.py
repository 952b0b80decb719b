"""Events from a client into the lake, with everything on the same cores: rate, lag and memory.

Memory of intake and sink must stay. A bus in memory keeps each event for its topic's retention, far
longer than a run lasts, so its server grows by what an event takes there: told, and not bounded.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread

from feedrank_core.runtime.home import Home
from feedrank_core.runtime.progress import progress

from feedrank_cli.bench.data_path import BUS, INTAKE, SINK, DataPath
from feedrank_cli.bench.event_load import BATCH, Ledger, Load, send
from feedrank_cli.bench.report import BenchCannotRun, Report
from feedrank_cli.demo import free_ports
from feedrank_cli.up import BusKind

NAME = "intake"
HELP = "events/s in batches of 100 from the client into the lake, and memory of all, on 2 cores"
PROCESSES, CLIENT = (BUS, INTAKE, SINK), "client"
FLOOR_EVENTS = 200_000
WARM_UP_EVENTS = 50_000
BURST_EVENTS = 300_000
QUICK_MINUTES, FULL_MINUTES = 0.75, 10.0
OFFERED_PER_S = 11_000.0
"""Above the bound by what the lake's last batch, some seconds late, takes off a short run."""
MIN_EVENTS_PER_S = 10_000
MAX_RSS_GROWTH = 0.10
SAMPLE_S = 1.0
START_S = 30.0

_FLOOR = """
from fastapi import FastAPI, Request, Response
from feedrank_core.runtime.serving import serve
app = FastAPI()
@app.post("/v1/events")
async def events(request: Request) -> Response:
    await request.body()
    return Response(b'{{}}', status_code=202, media_type="application/json")
serve(app, "127.0.0.1", {port})
"""


@dataclass(frozen=True)
class Taken:
    """One load. `lake_per_s` counts until the lake holds the last event."""

    events_per_s: float
    lake_per_s: float
    drain_s: float
    p99_ms: float


@dataclass
class Samples:
    """Taken each SAMPLE_S while a load runs."""

    lag: list[float] = field(default_factory=list)
    rss_bytes: dict[str, list[int]] = field(default_factory=lambda: {n: [] for n in PROCESSES})

    def growth(self, name: str) -> float:
        """The last fifth against the second one: by then caches and allocators have filled."""
        values = self.rss_bytes[name]
        fifth = max(1, len(values) // 5)
        return statistics.median(values[-fifth:]) / statistics.median(values[fifth : 2 * fifth]) - 1


def run(
    home: Home,
    *,
    quick: bool,
    seed: int,
    bus: BusKind = BusKind.REDIS,
    minutes: float | None = None,
    users: int = 100_000,
) -> Report:
    """Load the floor, then the data path: a burst, then OFFERED_PER_S for some minutes.

    Everything runs in a folder of its own; `home` is left alone. Raises: BenchCannotRun.
    """
    minutes = minutes or (QUICK_MINUTES if quick else FULL_MINUTES)
    floor_per_s, floor_p99_ms = _floor(seed)
    with (
        tempfile.TemporaryDirectory(prefix="feedrank-bench-") as folder,
        DataPath(Path(folder), bus) as path,
    ):
        _take(path, Load(path.url, seed + 1, num_users=users), WARM_UP_EVENTS)
        burst = _take(path, Load(path.url, seed + 2, num_users=users), BURST_EVENTS)
        before, bus_bytes = _cpu_s(path), path.rss_bytes(BUS)
        with _sampled(path) as samples:
            num_events = int(OFFERED_PER_S * 60 * minutes)
            load = Load(path.url, seed + 3, num_users=users, rate=OFFERED_PER_S)
            steady = _take(path, load, num_events)
        spent_s = {name: now - before[name] for name, now in _cpu_s(path).items()}
        bus_grew_bytes, lag = path.rss_bytes(BUS) - bus_bytes, path.lag()
    report = Report(f"{NAME} on {bus}", seed)
    _tell_burst(report, burst, floor_per_s, floor_p99_ms)
    report.figure("minutes", minutes)
    report.figure("events", num_events)
    _tell_steady(report, steady, samples)
    report.figure("lag_end_events", lag)
    for name, cpu_s in spent_s.items():
        report.figure(f"{name}_cpu_us_per_event", cpu_s / num_events * 1e6)
    report.figure("bus_rss_bytes_per_event", bus_grew_bytes / num_events)
    report.bound("lag_end_events", "==", 0)
    return report


def _cpu_s(path: DataPath) -> dict[str, float]:
    return {name: path.cpu_s(name) for name in PROCESSES} | {CLIENT: time.process_time()}


def _tell_burst(report: Report, burst: Taken, floor_per_s: float, floor_p99_ms: float) -> None:
    report.figure("burst_events_per_s", burst.events_per_s)
    report.figure("burst_lake_events_per_s", burst.lake_per_s)
    report.figure("burst_request_p99_ms", burst.p99_ms)
    report.figure("burst_ratio_to_floor", burst.events_per_s / floor_per_s)
    report.floor("burst_events_per_s", floor_per_s)
    report.floor("burst_request_p99_ms", floor_p99_ms)


def _tell_steady(report: Report, steady: Taken, samples: Samples) -> None:
    report.figure("events_per_s", steady.events_per_s)
    report.figure("lake_events_per_s", steady.lake_per_s)
    report.figure("request_p99_ms", steady.p99_ms)
    report.figure("lag_max_events", max(samples.lag))
    report.figure("drain_s", steady.drain_s)
    for name in (INTAKE, SINK):
        report.figure(f"{name}_rss_mb", samples.rss_bytes[name][-1] / 1e6)
        report.figure(f"{name}_rss_growth", samples.growth(name))
        report.bound(f"{name}_rss_growth", "<=", MAX_RSS_GROWTH)
    report.figure("bus_rss_peak_mb", max(samples.rss_bytes[BUS]) / 1e6)
    report.bound("events_per_s", ">=", MIN_EVENTS_PER_S)
    report.bound("lake_events_per_s", ">=", MIN_EVENTS_PER_S)


def _take(path: DataPath, load: Load, num_events: int) -> Taken:
    ledger, num_batches = Ledger(), num_events // BATCH
    started = time.monotonic()
    with progress("batches", num_batches) as tick:
        asyncio.run(send(load, ledger, num_batches=num_batches, tick=tick))
    sent = time.monotonic()
    path.wait_drained()
    drained = time.monotonic()
    if len(ledger.accepted) != num_batches or ledger.refused:
        raise BenchCannotRun(f"{ledger.refused} batches were refused in part")
    events = num_batches * BATCH
    return Taken(
        events / (sent - started), events / (drained - started), drained - sent, _p99_ms(ledger)
    )


def _p99_ms(ledger: Ledger) -> float:
    return statistics.quantiles(ledger.seconds, n=100)[98] * 1e3


@contextmanager
def _sampled(path: DataPath) -> Iterator[Samples]:
    samples, done = Samples(), Event()

    def look() -> None:
        while not done.wait(SAMPLE_S):
            samples.lag.append(path.sink_metric("sink_lag_records"))
            for name, values in samples.rss_bytes.items():
                values.append(path.rss_bytes(name))

    watcher = Thread(target=look, name="samples", daemon=True)
    watcher.start()
    try:
        yield samples
    finally:
        done.set()
        watcher.join()


def _floor(seed: int) -> tuple[float, float]:
    """Events/s and p99 in ms of an endpoint that reads the body and answers."""
    [port] = free_ports(1)
    ledger = Ledger()
    process = subprocess.Popen(
        [sys.executable, "-c", _FLOOR.format(port=port)], stderr=subprocess.DEVNULL
    )
    try:
        _wait_answer(f"http://127.0.0.1:{port}/")
        started = time.monotonic()
        load = Load(f"http://127.0.0.1:{port}", seed)
        asyncio.run(send(load, ledger, num_batches=FLOOR_EVENTS // BATCH))
        return FLOOR_EVENTS / (time.monotonic() - started), _p99_ms(ledger)
    finally:
        process.terminate()
        process.wait()


def _wait_answer(url: str) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(url, timeout=1).close()
            return
        except urllib.error.HTTPError as error:
            error.close()
            return
        except OSError:
            time.sleep(0.1)
    raise BenchCannotRun(f"the floor was not ready within {START_S:.0f} s")
