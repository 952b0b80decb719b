"""Ten million events of one reader through the day, and as many of many readers as the floor.

A reader that large is a script or a shared device. Whatever works by reader (windows, sorts, a
history that must stay whole) sees one heap there in place of many small ones: the day must not
take much longer for it, nor more memory than it has.
"""

# pyarrow.compute builds its functions at import, where pyright does not see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from feedrank_core.contracts.items import Item, ItemType
from feedrank_core.runtime.home import Home
from feedrank_core.runtime.lake import Lake

from feedrank_cli.bench.day_command import Ran, run_command
from feedrank_cli.bench.event_load import KINDS
from feedrank_cli.bench.features import MAX_GB
from feedrank_cli.bench.report import Report, require_room

NAME = "one_reader"
HELP = "10M events of one reader through features and pairs, against as many of 100,000 readers"
FULL_EVENTS, QUICK_EVENTS = 10_000_000, 1_000_000
NUM_ITEMS = 10_000
DAYS = 30
CHUNK = 1_000_000
DWELL_S = 40.0
"""Of each view: long enough that every type of item counts it as engaged."""
BYTES_PER_EVENT = 1_000
"""On disk at most: lake, feature tables, pairs and what DuckDB spills."""
MAX_TIMES_CPU, MAX_TIMES_GB = 2.0, 1.5
"""An event costs the same whoever's it is, but for the sorts, which have one heap in place of many
small ones, and for how far DuckDB fills its own limit. What grew by the square of a reader's events
would cost a thousand times as much, and what held a reader whole several times the memory."""


def run(
    home: Home, *, quick: bool, seed: int, events: int | None = None, users: int = 100_000
) -> Report:
    """Fill a lake twice and run the day's two commands on each, below a folder in the home.

    Raises: BenchCannotRun.
    """
    events = events or (QUICK_EVENTS if quick else FULL_EVENTS)
    require_room(home.root, BYTES_PER_EVENT * events)
    report = Report(NAME, seed)
    report.figure("events", events)
    many = _day(home.root, events, users, seed)
    one = _day(home.root, events, 1, seed)
    for command, ran in one.items():
        beside = many[command]
        report.figure(f"{command}_s", ran.seconds)
        report.figure(f"{command}_cpu_s", ran.cpu_s)
        report.figure(f"{command}_gb", ran.gb)
        report.floor(f"{command}_s", beside.seconds)
        report.floor(f"{command}_cpu_s", beside.cpu_s)
        report.floor(f"{command}_gb", beside.gb)
        report.figure(f"{command}_times_floor", ran.seconds / beside.seconds)
        report.figure(f"{command}_times_floor_cpu", ran.cpu_s / beside.cpu_s)
        report.figure(f"{command}_times_floor_gb", ran.gb / beside.gb)
        report.bound(f"{command}_times_floor_cpu", "<=", MAX_TIMES_CPU)
        report.bound(f"{command}_times_floor_gb", "<=", MAX_TIMES_GB)
        report.bound(f"{command}_gb", "<=", MAX_GB)
    report.figure("pairs", one["pairs"].said["pairs"])
    report.floor("pairs", many["pairs"].said["pairs"])
    return report


def _day(root: Path, num_events: int, num_readers: int, seed: int) -> dict[str, Ran]:
    """What each command took on a lake of so many events of so many readers."""
    with tempfile.TemporaryDirectory(prefix="bench-one-reader-", dir=root) as folder:
        place = Home(Path(folder))
        fill(Lake(place.lake), num_events, num_readers, seed=seed, now=datetime.now(UTC))
        run_command(place, "feedrank_feature_store", "catalogue")
        features = run_command(place, "feedrank_feature_store", "features", "--no-online")
        pairs = run_command(place, "feedrank_trainer", "pairs", "--run", str(place.runs / "bench"))
    return {"features": features, "pairs": pairs}


def fill(lake: Lake, num_events: int, num_readers: int, *, seed: int, now: datetime) -> None:
    """Items, and events drawn alike whoever's they are, evenly over DAYS up to now."""
    rng, start = np.random.default_rng(seed), now - timedelta(days=DAYS)
    types = list(ItemType)
    lake.append(
        "items",
        [
            Item(
                item_id=f"i{n}",
                item_type=types[n % len(types)],
                creator_id=f"c{n % 997}",
                category=f"category-{n % 20}",
                created_at=start,
                accepted_at=start,
            ).model_dump()
            for n in range(NUM_ITEMS)
        ],
    )
    for first in range(0, num_events, CHUNK):
        numbers = np.arange(first, min(first + CHUNK, num_events))
        kind = np.array(KINDS)[rng.integers(0, len(KINDS), len(numbers))]
        at_s = start.timestamp() + numbers * (DAYS * 86_400 / num_events)
        events = pa.table(
            {
                "event_id": _named("e", numbers),
                "user_id": _named("u", rng.integers(0, num_readers, len(numbers))),
                "item_id": _named("i", rng.integers(0, NUM_ITEMS, len(numbers))),
                "request_id": _named("r", numbers // 20),
                "event_type": pa.array(kind),
                "dwell_s": pa.array(np.full(len(numbers), DWELL_S), mask=kind != "view"),
                "occurred_at": _instants(at_s),
                "accepted_at": _instants(at_s),
            }
        )
        shown = pc.equal(events["event_type"], "impression")
        lake.append("impressions", events.filter(shown).drop_columns(["dwell_s"]))
        lake.append("interactions", events.filter(pc.invert(shown)))
    lake.compact()


def _named(prefix: str, numbers: np.ndarray) -> pa.Array:
    return pc.binary_join_element_wise(prefix, pa.array(numbers).cast(pa.string()), "")


def _instants(at_s: np.ndarray) -> pa.Array:
    return pa.array((at_s * 1e6).astype(np.int64)).cast(pa.timestamp("us", "UTC"))
