"""Metrics of rankings that no label decides: coverage, novelty, diversity, popularity, overlap.

Rankings (U, K) are dense item indices, best first, padded with -1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse


def coverage(ranked_UK: np.ndarray, num_items: int) -> float:
    """Share of the catalogue that stands in at least one ranking."""
    shown = np.unique(ranked_UK)
    return float((shown >= 0).sum() / num_items)


def novelty(ranked_UK: np.ndarray, count_N: np.ndarray) -> float:
    """Mean self-information of the items shown, in bits: rare items are news.

    Source: Zhou et al. 2010 (PNAS); counts are smoothed by one so that unseen items are finite.
    """
    probability_N = (count_N + 1) / (count_N.sum() + len(count_N))
    shown = ranked_UK[ranked_UK >= 0]
    return float(-np.log2(probability_N[shown]).mean())


def diversity(ranked_UK: np.ndarray, unit_ND: Any) -> float:
    """Mean distance between two items of one ranking: 1 less the cosine of their vectors.

    An item whose vector is zero is at distance 1 from every other. The mean is over rankings of two
    items and more; NaN where there is none.
    Shapes: unit_ND (N, D), a numpy array or a sparse matrix, rows of length 1 or 0.
    Source: the complement of the intra-list similarity of Ziegler et al. 2005.
    """
    is_there_UK = ranked_UK >= 0
    size_U = is_there_UK.sum(axis=1)
    users = np.repeat(np.arange(len(ranked_UK)), size_U)
    shape = (len(ranked_UK), unit_ND.shape[0])
    shown_UN = sparse.csr_matrix((np.ones(len(users)), (users, ranked_UK[is_there_UK])), shape)
    # All pairs of a ranking at once: the square of the sum holds each twice, and each item's own.
    own_U = shown_UN @ _squared_length(unit_ND)
    both_U = _squared_length(shown_UN @ unit_ND) - own_U
    pairs_U = size_U * (size_U - 1)
    counts = pairs_U > 0
    return float((1 - both_U[counts] / pairs_U[counts]).mean()) if counts.any() else float("nan")


def popularity_lift(ranked_UK: np.ndarray, own_UN: sparse.csr_matrix, count_N: np.ndarray) -> float:
    """How often popularity doubles from what a reader had to what the reader is shown.

    The mean over readers of the mean log2(count + 1) of the items shown, less that of the reader's
    own: 0 keeps to their taste, 1 shows items twice as popular. Readers without items of their own
    take no part; NaN where that is everybody.
    Source: the change in group average popularity of Abdollahpouri et al. 2019 (The Unfairness of
    Popularity Bias in Recommendation), in logs so that a few giants do not decide it.
    """
    log_N = np.log2(count_N + 1)
    is_there_UK, num_own_U = ranked_UK >= 0, np.diff(own_UN.indptr)
    counts = is_there_UK.any(axis=1) & (num_own_U > 0)
    if not counts.any():
        return float("nan")
    log_UK = np.where(is_there_UK, log_N[ranked_UK], 0.0)[counts]
    had_U = (own_UN @ log_N)[counts] / num_own_U[counts]
    return float((log_UK.sum(axis=1) / is_there_UK[counts].sum(axis=1) - had_U).mean())


def _squared_length(vectors: Any) -> np.ndarray:
    squares = vectors.multiply(vectors) if sparse.issparse(vectors) else np.square(vectors)
    return np.asarray(squares.sum(axis=1)).ravel()


def overlap(ranked_UK: np.ndarray, *, num_pairs: int, seed: int) -> float:
    """Mean share of places that two different users have in common, over drawn pairs.

    1 means that everybody gets the same; NaN with fewer than two users.
    """
    num_users, k = ranked_UK.shape
    if num_users < 2:
        return float("nan")
    chance = np.random.default_rng(seed)
    first = chance.integers(num_users, size=num_pairs)
    second = (first + chance.integers(1, num_users, size=num_pairs)) % num_users
    shared = [
        len(np.intersect1d(ranked_UK[a], ranked_UK[b])) for a, b in zip(first, second, strict=True)
    ]
    return float(np.mean(shared) / k)
