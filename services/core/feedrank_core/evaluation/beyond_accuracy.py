"""Metrics of many users' rankings together: coverage, novelty, overlap between users."""

from __future__ import annotations

import numpy as np


def coverage(ranked_UK: np.ndarray, num_items: int) -> float:
    """Share of the catalogue that stands in at least one ranking. Padding is -1."""
    shown = np.unique(ranked_UK)
    return float((shown >= 0).sum() / num_items)


def novelty(ranked_UK: np.ndarray, count_N: np.ndarray) -> float:
    """Mean self-information of the items shown, in bits: rare items are news.

    Source: Zhou et al. 2010 (PNAS); counts are smoothed by one so that unseen items are finite.
    """
    probability_N = (count_N + 1) / (count_N.sum() + len(count_N))
    shown = ranked_UK[ranked_UK >= 0]
    return float(-np.log2(probability_N[shown]).mean())


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
