"""The columns that ranking stages work on: candidates of one request, items of one bundle."""

from __future__ import annotations

from dataclasses import dataclass, replace

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

    `score_N` is as retrieved, `value_N` what scorers made of it.

    Shapes: all (N,). Units: created_at_N in Unix seconds.
    """

    index_N: np.ndarray
    key_N: np.ndarray
    creator_N: np.ndarray
    category_N: np.ndarray
    created_at_N: np.ndarray
    active_N: np.ndarray
    source_N: np.ndarray
    score_N: np.ndarray
    value_N: np.ndarray

    def __len__(self) -> int:
        return len(self.index_N)

    def take(self, rows_M: np.ndarray) -> Candidates:
        """These rows, in this order. Shapes: rows_M (M,) integer."""
        return Candidates(
            self.index_N.take(rows_M),
            self.key_N.take(rows_M),
            self.creator_N.take(rows_M),
            self.category_N.take(rows_M),
            self.created_at_N.take(rows_M),
            self.active_N.take(rows_M),
            self.source_N.take(rows_M),
            self.score_N.take(rows_M),
            self.value_N.take(rows_M),
        )

    def followed_by(self, other: Candidates) -> Candidates:
        """These rows, then the other's."""
        return Candidates(
            *(
                np.concatenate([getattr(self, name), getattr(other, name)])
                for name in self.__slots__
            )
        )

    def with_values(self, value_N: np.ndarray) -> Candidates:
        """The same rows with other values."""
        return replace(self, value_N=value_N)
