"""History in bulk: what a world's readers did under the logging policy, as Parquet files.

Readers are taken in blocks and each block through all days, so that memory is that of one block
a worker. A run that was killed is continued by the next with the same arguments.
"""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from feedrank_simulator.history import rate_for
from feedrank_simulator.mapped import Mapped
from feedrank_simulator.parts import TABLES, parts_of, table_path
from feedrank_simulator.plan import Plan, PlanError
from feedrank_simulator.policy import Shelf
from feedrank_simulator.workers import make_parts
from feedrank_simulator.world import World

PAGE_SIZE = 20
SESSIONS_PER_DAY = 2.0
_WORK = ".work"
Progress = Callable[[int, int], None]
"""Called with parts done and parts in all."""


@dataclass(frozen=True)
class Written:
    """Rows by table."""

    rows: dict[str, int]

    @classmethod
    def count(cls, out: Path) -> Written:
        """What lies in a folder of history, by the files' own counts. Raises: OSError."""
        return cls(
            {
                name: sum(
                    pq.read_metadata(path).num_rows
                    for path in table_path(out, name).glob("part-*.parquet")
                )
                for name in TABLES
            }
        )

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
    workers: int = 1,
    progress: Progress = lambda done, total: None,
) -> Written:
    """Fill DIR/{items,users,impressions,interactions,slates}.parquet in contract columns.

    The same world and seed give the same bytes, whatever the number of workers, and whether in
    one run or continued after it was killed. `events_target` sets the number of sessions so that
    about so many impressions and interactions come of it.

    Raises: PlanError where DIR holds another history, TargetError, OSError.
    """
    out.mkdir(parents=True, exist_ok=True)
    with _only_writer(out):
        shelf = Shelf.of(world)
        if events_target is not None:
            sessions_per_user_day = rate_for(shelf, events_target, seed=seed, page_size=page_size)
        plan = Plan.of(
            world, seed=seed, sessions_per_user_day=sessions_per_user_day, page_size=page_size
        )
        plan.keep(out)
        stored = Mapped.save(shelf, out / _WORK)
        del world, shelf  # the workers share what was stored; a second copy would count twice
        parts = parts_of(plan)
        missing = [part for part in parts if not part.done(out)]
        progress(len(parts) - len(missing), len(parts))
        made = make_parts(stored, plan, missing, out, workers=workers)
        for done, _ in enumerate(made, start=len(parts) - len(missing) + 1):
            progress(done, len(parts))
        return Written.count(out)


@contextmanager
def _only_writer(out: Path) -> Iterator[None]:
    """Hold the folder, with one sub-folder a table and nothing left of a run that was killed."""
    with (out / ".lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise PlanError(f"{out}: another run is writing there; wait for it to end") from error
        for name in TABLES:
            folder = table_path(out, name)
            folder.mkdir(exist_ok=True)
            for unfinished in folder.glob(".*.unfinished"):
                unfinished.unlink()
        try:
            yield
        finally:
            shutil.rmtree(out / _WORK, ignore_errors=True)
