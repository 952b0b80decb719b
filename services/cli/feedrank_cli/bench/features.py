"""A simulated log into feature tables by the daily run's two commands: speed and memory.

Memory is all that a command's processes have at once, pages of mapped files included, though the
kernel can drop those.

The floor is DuckDB on the same files of the lake, without a memory limit: each event once into a
count and a last instant by reader, and again by item.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
from feedrank_core.runtime.home import Home
from feedrank_core.runtime.lake import Lake

from feedrank_cli.bench.day_command import run_command
from feedrank_cli.bench.report import Report, require_room
from feedrank_cli.bench.simulate import simulate

NAME = "features"
HELP = "100M events into feature tables (--events N for less): speed and memory"
FULL_EVENTS, QUICK_EVENTS = 100_000_000, 2_000_000
MAX_GB = 8.0
BYTES_PER_EVENT = 450
"""On disk at most: history or scratch 90 and 180, lake 120, tables 60."""
TOPICS = ("users", "items", "impressions", "interactions")


def run(home: Home, *, quick: bool, seed: int, events: int | None = None) -> Report:
    """Simulate, bring into a lake, write the tables. All below a folder of its own in the home.

    Raises: BenchCannotRun.
    """
    events = events or (QUICK_EVENTS if quick else FULL_EVENTS)
    require_room(home.root, BYTES_PER_EVENT * events)
    report = Report(NAME, seed)
    with tempfile.TemporaryDirectory(prefix="bench-features-", dir=home.root) as folder:
        place = Home(Path(folder))
        history = place.root / "history"
        simulate(history, events, seed=seed, workers=len(os.sched_getaffinity(0)))
        num_events = bring(history, place)
        report.figure("events", num_events)
        rows, total_s, peak_gb = {}, 0.0, 0.0
        for step in (("catalogue",), ("features", "--no-online")):
            ran = run_command(place, "feedrank_feature_store", *step)
            report.figure(f"{step[0]}_s", ran.seconds)
            rows |= ran.said
            total_s, peak_gb = total_s + ran.seconds, max(peak_gb, ran.gb)
        floor_s = scan_and_group(Lake(place.lake))
    report.figure("events_per_s", num_events / total_s)
    report.figure("peak_memory_gb", peak_gb)
    report.figure("times_floor", total_s / floor_s)
    for table, num_rows in rows.items():
        report.figure(f"{table}_rows", num_rows)
    report.floor("seconds", floor_s)
    report.floor("events_per_s", num_events / floor_s)
    report.bound("peak_memory_gb", "<=", MAX_GB)
    return report


def bring(history: Path, place: Home) -> int:
    """Put a simulated history into the lake, removing it on the way; how many events."""
    lake = Lake(place.lake)
    for topic in TOPICS:
        for part in sorted((history / f"{topic}.parquet").glob("part-*.parquet")):
            lake.append(topic, pq.read_table(part))
            part.unlink()
    shutil.rmtree(history)
    lake.compact()
    return sum(lake.num_rows(topic) for topic in ("impressions", "interactions"))


def scan_and_group(lake: Lake) -> float:
    """Seconds of DuckDB for one pass over the events by reader, and one by item."""
    files = [file for topic in ("impressions", "interactions") for file in lake.files(topic)]
    began = time.monotonic()
    with duckdb.connect() as connection:
        events = connection.read_parquet(files, union_by_name=True)
        for entity in ("user_key", "item_key"):
            connection.execute(
                f"SELECT {entity}, count(*), max(accepted_at) FROM events GROUP BY 1"
            ).to_arrow_table()
        del events
    return time.monotonic() - began
