"""What the feature store needs of the world: an online store, and an engine for the batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:  # The stream shares this module and starts without Ibis.
    import ibis.expr.types as ir
    import pyarrow as pa


class OnlineStoreError(RuntimeError):
    """The online store did not take a write; it may hold part of it."""


@dataclass(frozen=True)
class OnlineRow:
    """A reader's newest values by column; `profile` is None where it did not change."""

    user_id: str
    counters: dict[str, Any] | None
    history: dict[str, Any] | None
    profile: dict[str, Any] | None


class OnlineFeatures(Protocol):
    """Holds each reader's newest features by view. Blocks."""

    def write(self, rows: Sequence[OnlineRow], at: datetime) -> None:
        """Replace what is held of these readers, as of `at`. Raises: OnlineStoreError."""
        ...

    def forget(self, user_ids: Sequence[str]) -> None:
        """Hold nothing of these readers any more. Raises: OnlineStoreError."""
        ...


class Pieces(Protocol):
    """Tables cut by a hash of one column: its every value is in one piece. Iterable once more."""

    def __iter__(self) -> Iterator[Mapping[str, ir.Table]]:
        """The pieces, each the rows of all tables by their names."""
        ...

    def whole(self, name: str) -> ir.Table:
        """All rows of one of the tables; nothing is computed again."""
        ...


class Engine(Protocol):
    """Runs Ibis expressions over the lake as of one instant. Everything blocks."""

    def view(self, name: str) -> ir.Table:
        """A view of `lake_views.VIEWS`."""
        ...

    def cut(self, by: str, **tables: ir.Table) -> Pieces:
        """These tables, which all have the column `by`, computed once and in pieces that fit."""
        ...

    def held(self, expression: ir.Table) -> AbstractContextManager[ir.Table]:
        """The rows of an expression that is used more than once, computed once."""
        ...

    def batches(self, expression: ir.Table, rows: int) -> Iterator[pa.RecordBatch]:
        """The rows of an expression in its order, at most `rows` at a time, never all at once."""
        ...
