"""The parts of a history: which files each makes, and how it makes them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from feedrank_core.runtime.atomic import replacing
from feedrank_core.runtime.lake_schema import contract_schema

from feedrank_simulator.event_tables import impressions_table, interactions_table, slates_table
from feedrank_simulator.history import simulate
from feedrank_simulator.plan import Plan
from feedrank_simulator.policy import Shelf
from feedrank_simulator.rendering import BLOCK, item_tables, user_tables
from feedrank_simulator.sessions import Sessions

EVENT_TABLES = ("impressions", "interactions", "slates")
TABLES = ("items", "users", *EVENT_TABLES)
ROWS_PER_PART = 16 * BLOCK
"""Items and readers in a file: 16 blocks of 8192, some 90 MB of items."""
ROW_GROUP = 131_072
_UNIQUE = ("event_id", "item_id", "items_json", "text", "text_vector", "image_vector")
"""Columns whose values hardly ever repeat; a dictionary of them would be built in vain."""


@dataclass(frozen=True)
class Part:
    """Rows `first` up to `last` of the catalogue or of the readers, made at one go.

    `subject` is `items` or `users`, or `events` for what these readers did.
    """

    subject: str
    number: int
    first: int
    last: int

    def files(self, out: Path) -> dict[str, Path]:
        """The file of each table that it fills."""
        tables = EVENT_TABLES if self.subject == "events" else (self.subject,)
        return {name: table_path(out, name) / f"part-{self.number:05d}.parquet" for name in tables}

    def done(self, out: Path) -> bool:
        """Whether an earlier run finished it."""
        return all(path.exists() for path in self.files(out).values())


def table_path(out: Path, table: str) -> Path:
    """The folder of a table's files, which readers of Parquet take like one file."""
    return out / f"{table}.parquet"


def parts_of(plan: Plan) -> list[Part]:
    """Every part, in the order in which they are made."""
    return [
        Part(subject, number, first, min(first + step, num))
        for subject, num, step in (
            ("items", plan.world.items, ROWS_PER_PART),
            ("users", plan.world.users, ROWS_PER_PART),
            ("events", plan.world.users, plan.readers_per_block),
        )
        for number, first in enumerate(range(0, num, step))
    ]


def write_part(shelf: Shelf, plan: Plan, part: Part, out: Path) -> None:
    """Make the files of a part; each appears whole. Raises: OSError."""
    with ExitStack() as stack:
        writers: dict[str, pq.ParquetWriter] = {}
        for name, path in part.files(out).items():
            unfinished = stack.enter_context(replacing(path))
            schema = contract_schema(name)
            writers[name] = stack.enter_context(
                pq.ParquetWriter(
                    unfinished,
                    schema,
                    compression="zstd",
                    use_dictionary=[c for c in schema.names if c not in _UNIQUE],  # pyright: ignore[reportArgumentType]
                )
            )
        for name, table in _tables(shelf, plan, part):
            writers[name].write_table(table, row_group_size=ROW_GROUP)


def _tables(shelf: Shelf, plan: Plan, part: Part) -> Iterator[tuple[str, pa.Table]]:
    if part.subject == "items":
        yield from (("items", t) for t in item_tables(shelf.world, part.first, part.last))
    elif part.subject == "users":
        yield from (("users", t) for t in user_tables(shelf.world, part.first, part.last))
    else:
        yield from _event_tables(shelf, plan, part)


def _event_tables(shelf: Shelf, plan: Plan, part: Part) -> Iterator[tuple[str, pa.Table]]:
    rng = np.random.default_rng([plan.seed, 20, part.first])
    runs = list(
        simulate(
            shelf,
            rng,
            np.arange(part.first, part.last),
            sessions_per_user_day=plan.sessions_per_user_day,
            page_size=plan.page_size,
        )
    )
    if runs:
        sessions = Sessions.joined(runs)
        yield "slates", slates_table(sessions)
        yield "impressions", impressions_table(sessions, rng)
        yield "interactions", interactions_table(sessions, rng)
