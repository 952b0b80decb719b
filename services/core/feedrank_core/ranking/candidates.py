"""The columns that ranking stages work on: candidates of one request, items of one bundle."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from feedrank_core.contracts.slates import Source

SOURCES: tuple[Source, ...] = tuple(Source)
"""`source_N` holds indices into this."""


@dataclass(frozen=True, slots=True)
class Retrieved:
    """What a source found, best first: dense item indices of one bundle and their scores.

    Shapes: index_N (N,) integer, score_N (N,) float32.
    """

    index_N: np.ndarray
    score_N: np.ndarray
    source: Source


@dataclass(frozen=True, slots=True)
class ItemTable:
    """The item columns of one bundle, by dense index; `key_I` ascends.

    Shapes: all (I,). Units: created_at_I in Unix seconds.
    """

    key_I: np.ndarray
    creator_I: np.ndarray
    category_I: np.ndarray
    created_at_I: np.ndarray
    active_I: np.ndarray

    def __len__(self) -> int:
        return len(self.key_I)


@dataclass(frozen=True, slots=True)
class Candidates:
    """Hydrated candidates of one request, one row each, in the order of the last stage.

    `score_N` is as retrieved, `value_N` what scorers made of it. The other columns of the item
    table are gathered when first asked for: most rows are gone by then, and each gather from a
    large table waits for memory.

    Shapes: all (N,). Units: created_at_N in Unix seconds.
    """

    items: ItemTable
    index_N: np.ndarray
    key_N: np.ndarray
    source_N: np.ndarray
    score_N: np.ndarray
    value_N: np.ndarray
    _gathered: dict[str, np.ndarray] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.index_N)

    @property
    def creator_N(self) -> np.ndarray:
        """Indices into the bundle's creators."""
        return self._column("creator_I")

    @property
    def category_N(self) -> np.ndarray:
        """Indices into the bundle's categories."""
        return self._column("category_I")

    @property
    def created_at_N(self) -> np.ndarray:
        """When each item was published."""
        return self._column("created_at_I")

    @property
    def active_N(self) -> np.ndarray:
        """False where an item was withdrawn."""
        return self._column("active_I")

    def take(self, rows_M: np.ndarray) -> Candidates:
        """These rows, in this order. Shapes: rows_M (M,) integer."""
        return Candidates(
            self.items,
            self.index_N.take(rows_M),
            self.key_N.take(rows_M),
            self.source_N.take(rows_M),
            self.score_N.take(rows_M),
            self.value_N.take(rows_M),
        )

    def first(self, num: int) -> Candidates:
        """The first `num` rows, or all where there are fewer."""
        return self if num >= len(self) else self.take(np.arange(num))

    def followed_by(self, other: Candidates) -> Candidates:
        """These rows, then the other's, of the same item table."""
        return Candidates(
            self.items,
            np.concatenate([self.index_N, other.index_N]),
            np.concatenate([self.key_N, other.key_N]),
            np.concatenate([self.source_N, other.source_N]),
            np.concatenate([self.score_N, other.score_N]),
            np.concatenate([self.value_N, other.value_N]),
        )

    def with_values(self, value_N: np.ndarray) -> Candidates:
        """The same rows with other values."""
        return replace(self, value_N=value_N)

    def _column(self, name: str) -> np.ndarray:
        column = self._gathered.get(name)
        if column is None:
            column = self._gathered[name] = getattr(self.items, name).take(self.index_N)
        return column
