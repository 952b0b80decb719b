"""What a format hands on: the rows of a file piece by piece, with their numbers.

A format is a module in `imports/formats` with `HELP`, `ROUTES` (the usual one first) and
`sources(path, topic)`, which gives the files to read. Rows are numbered from 1, as an editor counts
lines, so that a reject can be found and a second run goes on behind the last row kept.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from feedrank_cli.errors import CommandError

ROWS_AT_ONCE = 20_000
"""Rows as Python objects in one piece: some 40 MB of events, and of items with vectors 200 MB."""


@dataclass(frozen=True)
class Row:
    """A row as it stands in the file. `topic` is given where the format itself knows it."""

    number: int
    values: dict[str, Any]
    topic: str | None = None


@dataclass(frozen=True)
class Refusal:
    """A row that cannot be used, why, and what it looks like."""

    number: int
    reason: str
    text: str


@dataclass
class Piece:
    """What follows in a file, up to row `end`: either `rows` or a `table` that ends there.

    `advance` is how far this brings the reading, in the unit of `Source.size`.
    """

    end: int
    advance: int
    rows: list[Row] = field(default_factory=list)
    table: pa.Table | None = None
    broken: list[Refusal] = field(default_factory=list)


class Source(ABC):
    """One file to read. `size` is what progress counts, in a unit that all files share.

    `schema` holds the columns of every row, None where each row has its own.
    """

    path: Path
    size: int
    topic: str | None
    schema: pa.Schema | None

    @abstractmethod
    def read(self, start: int, *, columns: frozenset[str] | None) -> Iterator[Piece]:
        """Everything behind row `start`. `columns` are those that a mapping reads, if there is one.

        Raises: CommandError naming the file where it cannot be read on.
        """


def files_below(path: Path, endings: tuple[str, ...]) -> list[Path]:
    """The file, or those of a folder in the order of their names, hidden ones left out.

    Raises: CommandError where nothing is there.
    """
    if not path.exists():
        raise CommandError(f"{path} does not exist.", "Give the path of the data.", code=2)
    if path.is_file():
        return [path]
    found = sorted(p for p in path.rglob("*") if p.is_file() and p.name.endswith(endings))
    shown = [p for p in found if not any(x[0] in "._" for x in p.relative_to(path).parts)]
    if not shown:
        raise CommandError(
            f"{path} holds no file that ends in {' or '.join(endings)}.",
            "Give a file, or the folder that holds the files.",
            code=2,
        )
    return shown
