"""History in bulk: what a world's readers did under the logging policy, as Parquet files.

Readers are taken in blocks and each block through all days, so that memory is that of one block;
inside a block rows are in the order of acceptance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from feedrank_simulator.policy import Seen, Shelf
from feedrank_simulator.rendering import contract_schema, item_tables, user_tables
from feedrank_simulator.sessions import (
    Sessions,
    impressions_table,
    interactions_table,
    play,
    slates_table,
)
from feedrank_simulator.world import World

TABLES = ("items", "users", "impressions", "interactions", "slates")
READERS_PER_BLOCK = 2048
PAGE_SIZE = 20
SESSIONS_PER_DAY = 2.0
MAX_SESSIONS_PER_DAY = 8
PAUSE_S = 120.0
ROW_GROUP = 131_072
DAY_S = 86_400.0
PILOT_READERS = 512
Progress = Callable[[int, int], None]
"""Called with blocks done and blocks in all."""


@dataclass
class Written:
    """Rows by table."""

    rows: dict[str, int] = field(default_factory=lambda: dict.fromkeys(TABLES, 0))

    @property
    def events(self) -> int:
        """Impressions and interactions."""
        return self.rows["impressions"] + self.rows["interactions"]


def write_history(
    world: World,
    out: Path,
    *,
    seed: int,
    events_target: int | None = None,
    sessions_per_user_day: float = SESSIONS_PER_DAY,
    page_size: int = PAGE_SIZE,
    progress: Progress | None = None,
) -> Written:
    """Write DIR/{items,users,impressions,interactions,slates}.parquet in contract columns.

    The same world and seed give the same bytes. `events_target` sets the number of sessions so
    that about so many impressions and interactions come of it. Raises: OSError.
    """
    if events_target is not None:
        sessions_per_user_day = _rate_for(world, events_target, seed, page_size)
    out.mkdir(parents=True, exist_ok=True)
    written = Written()
    with ExitStack() as stack:
        writers = {
            name: stack.enter_context(
                pq.ParquetWriter(out / f"{name}.parquet", contract_schema(name), compression="zstd")
            )
            for name in TABLES
        }
        for name, table in _tables(world, seed, sessions_per_user_day, page_size, progress):
            writers[name].write_table(table, row_group_size=ROW_GROUP)
            written.rows[name] += table.num_rows
    return written


def simulate(
    world: World,
    rng: np.random.Generator,
    users: np.ndarray,
    *,
    sessions_per_user_day: float = SESSIONS_PER_DAY,
    page_size: int = PAGE_SIZE,
) -> Iterator[Sessions]:
    """Sessions of these readers, each reader's in order, none showing an item a second time."""
    seen = Seen(len(users))
    number = np.zeros(len(users), dtype=np.int64)
    free_at = np.full(len(users), world.start.timestamp())
    for day in range(world.num_days):
        day_start = world.start.timestamp() + day * DAY_S
        shelf = Shelf.of_day(world, day_start)
        count = rng.poisson(sessions_per_user_day * world.readers.activity_U[users])
        count = np.minimum(count, MAX_SESSIONS_PER_DAY)
        hours = np.sort(rng.beta(2.2, 1.6, (len(users), MAX_SESSIONS_PER_DAY)), axis=1)
        for k in range(int(count.max(initial=0))):
            rows = np.flatnonzero(count > k)
            served_at = np.maximum(day_start + 0.97 * DAY_S * hours[rows, k], free_at[rows])
            pages = shelf.pages(rng, users[rows], served_at, seen, rows, page_size)
            rows, served_at, pages = _real(world, rows, served_at, pages)
            sessions = play(world, rng, users[rows], number[rows], served_at, pages)
            shown, place = np.nonzero(sessions.on_screen_SP)
            seen.add(rows[shown], sessions.item_SP[shown, place])
            number[rows] += 1
            free_at[rows] = np.maximum(served_at, sessions.ended_at_S) + PAUSE_S
            yield sessions


def _real(
    world: World, rows: np.ndarray, served_at: np.ndarray, pages: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Leave out pages with nothing on them and what would be served after the end."""
    real = (pages[0][:, 0] >= 0) & (served_at < world.end.timestamp() - 60.0)
    return rows[real], served_at[real], (pages[0][real], pages[1][real])


def _tables(
    world: World, seed: int, rate: float, page_size: int, progress: Progress | None
) -> Iterator[tuple[str, pa.Table]]:
    yield from (("items", table) for table in item_tables(world))
    yield from (("users", table) for table in user_tables(world))
    starts = range(0, world.num_users, READERS_PER_BLOCK)
    for done, first in enumerate(starts, start=1):
        users = np.arange(first, min(first + READERS_PER_BLOCK, world.num_users))
        rng = np.random.default_rng([seed, 20, first])
        yield from _block_tables(world, rng, users, rate, page_size)
        if progress:
            progress(done, len(starts))


def _block_tables(
    world: World, rng: np.random.Generator, users: np.ndarray, rate: float, page_size: int
) -> Iterator[tuple[str, pa.Table]]:
    parts: dict[str, list[pa.Table]] = {"impressions": [], "interactions": [], "slates": []}
    for sessions in simulate(world, rng, users, sessions_per_user_day=rate, page_size=page_size):
        parts["slates"].append(slates_table(sessions))
        parts["impressions"].append(impressions_table(sessions, rng))
        parts["interactions"].append(interactions_table(sessions, rng))
    for name, tables in parts.items():
        if tables:
            yield name, pa.concat_tables(tables).combine_chunks().sort_by("accepted_at")


def _rate_for(world: World, events_target: int, seed: int, page_size: int) -> float:
    """Sessions per reader and day that give about `events_target`, by a pilot run."""
    if events_target < 1:
        raise ValueError("events_target must be at least 1")
    users = np.unique(np.linspace(0, world.num_users - 1, PILOT_READERS).astype(np.int64))
    rng = np.random.default_rng([seed, 21])
    events = 0
    for sessions in simulate(world, rng, users, page_size=page_size):
        events += int(sessions.on_screen_SP.sum())
        events += sum(int(mask.sum()) for mask in sessions.actions.done.values())
    expected = events * world.num_users / len(users)
    return SESSIONS_PER_DAY * events_target / max(expected, 1.0)
