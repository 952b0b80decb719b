"""kill -9 of the bus, the intake and the lake sink under load: accepted = stored, each once."""

from __future__ import annotations

import asyncio
import random
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from feedrank_core.runtime.home import Home
from feedrank_core.runtime.lake import Lake
from feedrank_core.runtime.progress import Tick, progress

from feedrank_cli.bench.data_path import BUS, EVENT_TOPICS, INTAKE, LOOK_S, SINK, DataPath
from feedrank_cli.bench.event_load import BATCH, Ledger, Load, send
from feedrank_cli.bench.report import BenchCannotRun, Report
from feedrank_cli.up import BusKind

NAME = "faults"
HELP = "kill -9 of bus, intake and sink under load: what was lost, doubled, and how soon it went on"
QUICK_KILLS, FULL_KILLS = 5, 100
RATE = 4_000.0
ABANDON = 0.3
"""Of the requests that got no answer: as impatient as clients that do not try again."""
MAX_PAUSE_S = 0.5
SINK_SECONDS = "0.25"
"""A sink that appends often is more often killed amid an append."""
RECOVERY_S = 180.0
"""Long, since the bus may be killed again and again before a new sink is let into its group."""
MAX_BUS_RECOVERY_S = 2.0


@dataclass(frozen=True)
class Kill:
    """How long a killed process took from its port being open to its being open, and from then."""

    reading_s: float
    recovery_s: float


@dataclass
class Outcome:
    """What a run of kills came to. `recoveries_s` by process, from its being open.

    The sink's include the outages of the others that fell upon it. `reading_s` is what a Redis bus
    took from its port being open to its having read its file; the more it holds, the longer.
    """

    kills: dict[str, int] = field(default_factory=dict)
    recoveries_s: dict[str, list[float]] = field(default_factory=dict)
    reading_s: list[float] = field(default_factory=list)
    accepted: int = 0
    abandoned: int = 0
    stored: int = 0
    lost: int = 0
    doubled: int = 0
    resent: int = 0
    """Records of the bus whose event was there already: the client got no answer the first time."""


def run(home: Home, *, quick: bool, seed: int, bus: BusKind = BusKind.REDIS) -> Report:
    """Kill each process many times. Runs in a folder of its own. Raises: BenchCannotRun."""
    num_kills = QUICK_KILLS if quick else FULL_KILLS
    with tempfile.TemporaryDirectory(prefix="feedrank-bench-") as folder:
        outcome = strike(Path(folder), bus, num_kills=num_kills, seed=seed)
    report = Report(f"{NAME} on {bus}", seed)
    for name, kills in outcome.kills.items():
        report.figure(f"kills_{name}", kills)
    for name in ("accepted", "abandoned", "stored", "resent", "lost", "doubled"):
        report.figure(name, getattr(outcome, name))
    for name, times in outcome.recoveries_s.items():
        report.figure(f"{name}_recovery_p50_s", statistics.median(times))
        report.figure(f"{name}_recovery_p99_s", quantile(times, 0.99))
        report.figure(f"{name}_recovery_max_s", max(times))
    if outcome.reading_s:
        report.figure("bus_reading_p50_s", statistics.median(outcome.reading_s))
        report.figure("bus_reading_max_s", max(outcome.reading_s))
    report.bound("lost", "==", 0)
    report.bound("doubled", "==", 0)
    report.bound("bus_recovery_p99_s", "<=", MAX_BUS_RECOVERY_S)
    return report


def strike(folder: Path, bus: BusKind, *, num_kills: int, seed: int) -> Outcome:
    """Kill bus, intake and sink `num_kills` times each under load, then compare with the lake.

    A kill comes at a random moment after the process went on from the one before.
    Raises: BenchCannotRun where a process does not come back.
    """
    often = {"FEEDRANK_LAKE_SINK_SECONDS": SINK_SECONDS}
    with DataPath(folder, bus, often) as path:
        ledger = Ledger()
        with progress("kills", 3 * num_kills) as tick:
            kills = asyncio.run(_under_load(path, ledger, num_kills, seed, tick))
        path.wait_drained()
        outcome = compare(ledger, path.lake_root)
    for name, found in kills.items():
        outcome.kills[name] = len(found)
        outcome.recoveries_s[name] = [kill.recovery_s for kill in found]
    if bus is BusKind.REDIS:
        outcome.reading_s = [kill.reading_s for kill in kills[BUS]]
    return outcome


async def _under_load(
    path: DataPath, ledger: Ledger, num_kills: int, seed: int, tick: Tick
) -> dict[str, list[Kill]]:
    load = Load(path.url, seed, rate=RATE, abandon=ABANDON)
    stop = asyncio.Event()
    sending = asyncio.create_task(send(load, ledger, stop=stop))
    loop = asyncio.get_running_loop()
    try:
        with ThreadPoolExecutor(2) as threads:
            # The intake is up while the bus's recovery is measured, and the sink falls whenever.
            writers = loop.run_in_executor(
                threads, _kill_by_turns, path, ledger, (BUS, INTAKE), num_kills, seed + 1, tick
            )
            sink = loop.run_in_executor(
                threads, _kill_by_turns, path, ledger, (SINK,), num_kills, seed + 2, tick
            )
            return await writers | await sink
    finally:
        stop.set()
        await sending


def _kill_by_turns(
    path: DataPath, ledger: Ledger, names: tuple[str, ...], num_kills: int, seed: int, tick: Tick
) -> dict[str, list[Kill]]:
    chance = random.Random(seed)
    turns = [name for name in names for _ in range(num_kills)]
    chance.shuffle(turns)
    kills: dict[str, list[Kill]] = {name: [] for name in names}
    for name in turns:
        time.sleep(chance.uniform(0, MAX_PAUSE_S))
        path.kill(name)
        path.start(name)
        listened_at = path.wait_port(name)
        opened_at = path.wait_open(name, listened_at)
        recovered_at = _recovered(path, ledger, name, opened_at)
        kills[name].append(Kill(opened_at - listened_at, recovered_at - opened_at))
        tick(1, name)
    return kills


def _recovered(path: DataPath, ledger: Ledger, name: str, opened_at: float) -> float:
    """When it did its work again: an event taken, or rows added. Raises: BenchCannotRun."""
    while time.monotonic() - opened_at < RECOVERY_S:
        if name == SINK and path.sink_metric("sink_rows_total"):
            return time.monotonic()
        if name != SINK and ledger.last_answered_at > opened_at:
            return ledger.last_answered_at
        time.sleep(LOOK_S)
    raise BenchCannotRun(f"{name} did not go on within {RECOVERY_S:.0f} s of its restart")


def compare(ledger: Ledger, lake_root: Path) -> Outcome:
    """The client's record against the lake, by event_id: its views, and its tables by offset."""
    outcome = Outcome(
        accepted=BATCH * len(ledger.accepted), abandoned=BATCH * len(ledger.abandoned)
    )
    found: set[int] = set()
    with Lake(lake_root).connect() as con:
        for topic in EVENT_TOPICS:
            rows, events, records = con.execute(
                f"""SELECT count(*), count(DISTINCT event_id),
                    count(DISTINCT (topic_partition, topic_offset)) FROM _{topic.name}"""
            ).fetchone() or (0, 0, 0)
            outcome.resent += records - events
            outcome.doubled += rows - records
            seen = con.execute(
                f"SELECT split_part(event_id, '-', 2)::BIGINT FROM {topic.name}"
            ).fetchnumpy()
            numbers = next(iter(seen.values())).tolist()
            outcome.stored += len(numbers)
            outcome.doubled += len(numbers) - len({*numbers})
            found.update(numbers)
    for number in ledger.accepted:
        outcome.lost += sum(i not in found for i in range(number * BATCH, (number + 1) * BATCH))
    known = ledger.accepted | ledger.abandoned
    strangers = {i // BATCH for i in found} - known
    if strangers:
        raise AssertionError(f"the lake holds batches that nobody sent: {sorted(strangers)[:5]}")
    return outcome


def quantile(values: list[float], share: float) -> float:
    """The value that `share` of them do not exceed."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]
