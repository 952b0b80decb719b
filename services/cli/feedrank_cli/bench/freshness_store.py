"""How soon an event shows online: from being sent to the intake until Feast reads it, under load.

The floor writes a reader with Feast's own `write_to_online_store` and reads it back: no intake, no
bus and no folding.
"""

from __future__ import annotations

import itertools
import os
import statistics
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Thread
from typing import Any

import httpx
import orjson
from feedrank_core.contracts.features import COUNTER_COLUMNS
from feedrank_core.runtime.home import Home
from rich.console import Console

from feedrank_cli.bench.report import BenchCannotRun, Report
from feedrank_cli.demo import free_ports, own_settings
from feedrank_cli.errors import CommandError
from feedrank_cli.readiness import READY, check
from feedrank_cli.roster import Process, roster
from feedrank_cli.settings import Settings
from feedrank_cli.up import BusKind, fetch_broker, with_bus

NAME = "freshness-store"
HELP = "from an event's sending to its being read online by Feast, at 1000 events/s"
EVENTS_PER_S = 1_000
BATCH = 20
NUM_USERS = 100_000
PROBE_EVERY = 3
"""Of every third batch one reader is watched until the event shows."""
NUM_PROBES = 40
WARM_UP_S = 5.0
QUICK_S, FULL_S = 15.0, 120.0
FLOOR_WRITES = 100
LOOK_S = 0.002
START_S = 180.0
GIVE_UP_S = 30.0
MAX_P50_MS, MAX_P99_MS = 100.0, 1_000.0
NEEDED = ("bus", "cache", "ingestion", "feature_store")
COUNT = "impressions_forever"


def run(home: Home, *, quick: bool, seed: int, bus: BusKind = BusKind.REDIS) -> Report:
    """Start what is needed in a folder of its own, load it, and watch readers.

    Raises: BenchCannotRun.
    """
    report = Report(f"{NAME} on {bus}", seed)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="feedrank-bench-")))
        settings = stack.enter_context(_running(folder, bus))
        reads = _OnlineReads(settings)
        floor_ms = _floor(reads)
        probes = Probes(reads)
        load = Load(settings, probes, seed)
        load.run_for(WARM_UP_S)
        probes.forget_times()
        load.run_for(QUICK_S if quick else FULL_S)
        probes.wait_for_all()
    waited_ms = [1e3 * seconds for seconds in probes.seconds]
    if len(waited_ms) < 100:
        raise BenchCannotRun(f"only {len(waited_ms)} events were watched")
    report.figure("events", load.sent)
    report.figure("events_per_s", load.sent / load.elapsed_s)
    report.figure("watched", len(waited_ms))
    for name, share in (("p50_ms", 50), ("p95_ms", 95), ("p99_ms", 99)):
        report.figure(name, statistics.quantiles(waited_ms, n=100)[share - 1])
    report.figure("max_ms", max(waited_ms))
    report.figure("never_shown", probes.lost)
    report.floor("p50_ms", statistics.median(floor_ms))
    report.floor("p99_ms", statistics.quantiles(floor_ms, n=100)[98])
    report.bound("p50_ms", "<=", MAX_P50_MS)
    report.bound("p99_ms", "<=", MAX_P99_MS)
    report.bound("never_shown", "==", 0)
    report.bound("events_per_s", ">=", 0.95 * EVENTS_PER_S)
    return report


@contextmanager
def _running(folder: Path, kind: BusKind) -> Iterator[Settings]:
    """The processes of NEEDED, ready; none is left behind."""
    settings = own_settings(folder).model_copy(update={"kafka_controller_port": free_ports(1)[0]})
    settings = with_bus(settings, kind)
    try:
        fetch_broker(settings, Console(stderr=True))
    except CommandError as error:
        raise BenchCannotRun(str(error)) from error
    logs = settings.place.logs
    logs.mkdir(parents=True)
    with ExitStack() as stack:
        for process in (p for p in roster(settings) if p.name in NEEDED):
            (settings.place.run / process.name).mkdir(parents=True, exist_ok=True)
            log = stack.enter_context((logs / f"{process.name}.log").open("ab"))
            child = subprocess.Popen(
                process.command, env=os.environ | settings.environment(), stdout=log, stderr=log
            )
            stack.callback(child.wait)
            stack.callback(child.kill)
            _wait_ready(settings, process, child, logs / f"{process.name}.log")
        yield settings


def _wait_ready(
    settings: Settings, process: Process, child: subprocess.Popen[bytes], log: Path
) -> None:
    deadline = time.monotonic() + START_S
    while check(settings, process) != READY:
        if child.poll() is not None or time.monotonic() > deadline:
            last = log.read_text(errors="replace")[-1000:]
            raise BenchCannotRun(f"{process.name} was not ready within {START_S:.0f} s: {last}")
        time.sleep(0.1)


class _OnlineReads:
    """Feast's SDK, as a service would read with it."""

    def __init__(self, settings: Settings) -> None:
        with warnings.catch_warnings(action="ignore"):
            from feature_repo.store import open_store

            self.store = open_store(settings.place.root, settings.cache_url)

    def counts(self, users: list[str]) -> list[float]:
        """What is shown of these readers' impressions; 0 where nothing is."""
        answer: Any = self.store.get_online_features(
            features=[f"user_counters:{COUNT}"], entity_rows=[{"user_id": user} for user in users]
        )
        return [value or 0.0 for value in answer.to_dict()[COUNT]]


def _floor(reads: _OnlineReads) -> list[float]:
    """Milliseconds to write one reader by Feast alone until a read shows it."""
    import pandas as pd

    milliseconds = []
    for n in range(1, FLOOR_WRITES + 1):
        now = datetime.now(UTC)
        row = {"user_id": "floor", "event_timestamp": now, "counted_at_us": n}
        frame = pd.DataFrame([row | dict.fromkeys(COUNTER_COLUMNS, float(n))])
        started = time.perf_counter()
        reads.store.write_to_online_store("user_counters", frame)
        while reads.counts(["floor"]) != [float(n)]:
            pass
        milliseconds.append(1e3 * (time.perf_counter() - started))
    return milliseconds


@dataclass
class Probes:
    """Readers of whom each event is watched: sent when, and shown when."""

    reads: _OnlineReads
    seconds: list[float] = field(default_factory=list)
    lost: int = 0
    _expected: dict[str, int] = field(default_factory=dict)
    _sent_at: dict[str, float] = field(default_factory=dict)

    def next_free(self, number: int) -> str | None:
        """A reader who waits for nothing."""
        user = f"probe-{number % NUM_PROBES}"
        return None if user in self._sent_at else user

    def sent(self, user: str, at: float) -> None:
        """One more impression of this reader is on its way since then."""
        self._expected[user] = self._expected.get(user, 0) + 1
        self._sent_at[user] = at

    def look(self) -> None:
        """Read everybody who waits; note who need not any longer."""
        waiting = list(self._sent_at)
        if not waiting:
            return
        counts = self.reads.counts(waiting)
        now = time.perf_counter()
        for user, count in zip(waiting, counts, strict=True):
            if count >= self._expected[user]:
                self.seconds.append(now - self._sent_at.pop(user))

    def forget_times(self) -> None:
        """What was measured so far was the warm-up."""
        self.seconds.clear()

    def wait_for_all(self) -> None:
        """Look until nobody waits; who still does after GIVE_UP_S is lost."""
        deadline = time.monotonic() + GIVE_UP_S
        while self._sent_at and time.monotonic() < deadline:
            self.look()
        self.lost = len(self._sent_at)


class Load:
    """EVENTS_PER_S to the intake by one connection, however slow it answers (open loop)."""

    def __init__(self, settings: Settings, probes: Probes, seed: int) -> None:
        self._url = f"http://127.0.0.1:{settings.ingestion_port}"
        self._probes, self._seed = probes, seed
        self._numbers = itertools.count()
        self.sent = 0
        self.elapsed_s = 0.0

    def run_for(self, seconds: float) -> None:
        """Send from a thread and look from this one. Counts anew with each call."""
        self.sent = 0
        stopping = Event()
        thread = Thread(target=self._send, args=(stopping,))
        started = time.perf_counter()
        thread.start()
        while time.perf_counter() - started < seconds:
            self._probes.look()
            time.sleep(LOOK_S)
        stopping.set()
        thread.join()
        self.elapsed_s = time.perf_counter() - started

    def _send(self, stopping: Event) -> None:
        due = time.perf_counter()
        with httpx.Client(base_url=self._url, timeout=30, trust_env=False) as client:
            while not stopping.is_set():
                number = next(self._numbers)
                probe = None
                if number % PROBE_EVERY == 0:
                    probe = self._probes.next_free(number // PROBE_EVERY)
                body = self._body(number, probe)
                if probe is not None:
                    self._probes.sent(probe, time.perf_counter())
                client.post("/v1/events", content=body).raise_for_status()
                self.sent += BATCH
                due += BATCH / EVENTS_PER_S
                stopping.wait(max(0.0, due - time.perf_counter()))

    def _body(self, number: int, probe: str | None) -> bytes:
        now = datetime.now(UTC).isoformat()
        events = []
        for i in range(number * BATCH, (number + 1) * BATCH):
            kind = ("impression", "click", "view", "like")[i % 4]
            event = {
                "event_id": f"{self._seed}-{i}",
                "event_type": kind,
                "user_id": f"u{i * 7919 % NUM_USERS}",
                "item_id": f"i{i * 104_729 % NUM_USERS}",
                "occurred_at": now,
            }
            events.append(event | {"dwell_s": 4.2} if kind == "view" else event)
        if probe is not None:
            events[0] |= {"user_id": probe}
        return orjson.dumps({"events": events})
