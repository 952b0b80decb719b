"""Selector: the best items, each unlike those before it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from feedrank_core.ranking.candidates import Candidates

LEAST_COSINE = -1.0


@dataclass(frozen=True, slots=True)
class MmrSelector:
    """Greedy: each place takes the row of the most value less likeness to what is placed already.

    `share` is the weight of likeness: at 0 the order is that of the values, at 1 values decide
    nothing but the first place. Values count by where they lie between the worst and the best of
    the candidates; likeness is the cosine to the most alike row before, 0 for a row without a
    vector. Of equal rows the better candidate is first, and a longer selection begins with the
    shorter one.

    Shapes: vectors_ID (I, D) of the bundle's items, by dense index.
    Source: Carbonell and Goldstein 1998, maximal marginal relevance, with lambda = 1 - share.
    """

    vectors_ID: np.ndarray
    share: float

    def __call__(self, candidates: Candidates, limit: int) -> np.ndarray:
        """Row numbers in the order of the feed. Shapes: (min(limit, N),)."""
        num_rows = min(limit, len(candidates))
        if num_rows <= 0:
            return np.empty(0, dtype=np.intp)
        unit_ND = unit_rows(self.vectors_ID.take(candidates.index_N, axis=0))
        merit_N = (1.0 - self.share) * _between_worst_and_best(candidates.value_N)
        likeness_N = np.full(len(candidates), LEAST_COSINE)
        rows = np.empty(num_rows, dtype=np.intp)
        for place in range(num_rows):
            row = int(np.argmax(merit_N - self.share * likeness_N))
            rows[place] = row
            merit_N[row] = -np.inf
            np.maximum(likeness_N, unit_ND @ unit_ND[row], out=likeness_N)
        return rows


def unit_rows(vector_ND: np.ndarray) -> np.ndarray:
    """The vectors at length 1; one of length 0 stays."""
    length_N1 = np.linalg.norm(vector_ND, axis=1, keepdims=True)
    return vector_ND / np.where(length_N1 > 0, length_N1, 1.0)


def _between_worst_and_best(value_N: np.ndarray) -> np.ndarray:
    value_N = value_N.astype(np.float64)
    span = value_N.max() - value_N.min()
    return (value_N - value_N.min()) / span if span > 0 else np.zeros(len(value_N))
