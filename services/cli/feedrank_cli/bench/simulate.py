"""The simulator at size: events a second and the memory of all its processes.

The floor writes as many bytes of random columns as Parquet, by as many processes: what remains when
there is no world to ask, no session to play and no text to make.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from feedrank_core.runtime.home import Home
from feedrank_core.runtime.memory import watching_peak
from feedrank_simulator.bulk import Written

from feedrank_cli.bench.report import BenchCannotRun, Report, require_room

NAME = "simulate"
HELP = "1M readers, 10M items, 100M events to Parquet (--events N for less): speed and memory."
FULL_EVENTS, QUICK_EVENTS = 100_000_000, 5_000_000
EVENTS_PER_READER, ITEMS_PER_READER = 100, 10
MAX_GB = 4.0
MIN_EVENTS_PER_S = 100_000.0
BYTES_PER_EVENT = 120
"""On disk, catalogue and slates included: 8.8 GB for 100M."""
FLOOR_BYTES = 200_000_000
"""Of random columns that each process writes; the floor's speed does not depend on how many."""


def run(home: Home, *, quick: bool, seed: int, events: int | None = None) -> Report:
    """Simulate into a folder of its own below the home, and write random columns beside it."""
    events = events or (QUICK_EVENTS if quick else FULL_EVENTS)
    require_room(home.root, 1.2 * BYTES_PER_EVENT * events)
    workers = len(os.sched_getaffinity(0))
    report = Report(NAME, seed)
    with tempfile.TemporaryDirectory(prefix="bench-simulate-", dir=home.root) as folder:
        out = Path(folder) / "history"
        began = time.monotonic()
        peak_gb = simulate(out, events, seed=seed, workers=workers)
        seconds = time.monotonic() - began
        written = Written.count(out)
        num_bytes = sum(file.stat().st_size for file in out.glob("*.parquet/*"))
        floor_bytes_per_s = random_columns(Path(folder), workers=workers)
    report.figure("events", written.events)
    report.figure("items", written.rows["items"])
    report.figure("seconds", seconds)
    report.figure("events_per_s", written.events / seconds)
    report.figure("peak_memory_gb", peak_gb)
    report.figure("written_gb", num_bytes / 1e9)
    floor_s = num_bytes / floor_bytes_per_s
    report.figure("times_floor", seconds / floor_s)
    report.floor("seconds", floor_s)
    report.bound("peak_memory_gb", "<=", MAX_GB)
    report.bound("events_per_s", ">=", MIN_EVENTS_PER_S)
    return report


def simulate(out: Path, events: int, *, seed: int, workers: int) -> float:
    """Run the command as a person would; the peak of all its processes in GB."""
    readers = max(1, events // EVENTS_PER_READER)
    sizes = {
        "users": readers,
        "items": readers * ITEMS_PER_READER,
        "events": events,
        "seed": seed,
        "workers": workers,
    }
    options = [text for name, size in sizes.items() for text in (f"--{name}", str(size))]
    command = [sys.executable, "-m", "feedrank_simulator", "bulk", "--out", str(out), *options]
    child = psutil.Popen(command, stdout=subprocess.DEVNULL)
    with watching_peak(child) as peak:
        code = child.wait()
    if code:
        raise BenchCannotRun(f"the simulator ended with {code}; its message stands above")
    return peak.gb


def random_columns(folder: Path, *, workers: int) -> float:
    """Bytes a second that `workers` processes write as Parquet beside each other."""
    spawn = multiprocessing.get_context("spawn")
    files = [folder / f"floor-{n}.parquet" for n in range(workers)]
    with ProcessPoolExecutor(workers, spawn) as pool:
        list(pool.map(_ready, range(workers)))  # they have imported what they need
        began = time.monotonic()
        list(pool.map(_write_random, files))
        seconds = time.monotonic() - began
    return sum(file.stat().st_size for file in files) / seconds


def _ready(worker: int) -> int:
    return worker


def _write_random(path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = 131_072
    schema = pa.schema([pa.field(f"c{n}", pa.float64()) for n in range(8)])
    with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=False) as writer:
        for _ in range(FLOOR_BYTES // (rows * 8 * 8)):
            columns = [rng.integers(0, 1 << 62, rows).view(np.float64) for _ in schema]
            writer.write_table(pa.table(columns, schema=schema))
