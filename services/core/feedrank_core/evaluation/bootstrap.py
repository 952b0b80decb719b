"""Bootstrap intervals over readers."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

NUM_RESAMPLES = 2000
LEVEL = 0.95


class Interval(NamedTuple):
    """A mean and its percentile interval."""

    mean: float
    low: float
    high: float


def interval(
    values: np.ndarray, *, seed: int, resamples: int = NUM_RESAMPLES, level: float = LEVEL
) -> Interval:
    """Mean over readers with its bootstrap interval; NaN readers take no part."""
    known = values[~np.isnan(values)]
    if not len(known):
        return Interval(float("nan"), float("nan"), float("nan"))
    rng = np.random.default_rng(seed)
    means = [known[rng.integers(0, len(known), len(known))].mean() for _ in range(resamples)]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(known.mean()), float(low), float(high))


def paired_difference(
    ours: np.ndarray, theirs: np.ndarray, *, seed: int, resamples: int = NUM_RESAMPLES
) -> Interval:
    """Mean of ours less theirs over the same readers: an interval above 0 is a win.

    Source: Koehn 2004, Statistical Significance Tests for Machine Translation Evaluation.
    """
    return interval(ours - theirs, seed=seed, resamples=resamples)
