"""Scorer: new items get a bounded head start that decays with age."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from feedrank_core.ranking.candidates import Candidates

MAX_BOOST = 0.1
"""At age 0, as a share of the range between the request's best and worst score.

Our own choice: an item can overtake only what scored at most a tenth of the range above it, so
that relevance decides and freshness breaks near-ties. Not yet tuned by an experiment.
"""
HALF_LIFE_S = 86_400.0
"""The boost halves every day. Our own choice: the catalogue is re-ranked daily, so what was
published since the last run is exactly what stands out."""


@dataclass(frozen=True, slots=True)
class FreshnessScorer:
    """Adds MAX_BOOST * range * 2^(-age / half-life). Units: `now_s` in Unix seconds."""

    now_s: float
    max_boost: float = MAX_BOOST
    half_life_s: float = HALF_LIFE_S

    def __call__(self, candidates: Candidates) -> np.ndarray:
        """Values no lower than before, and by at most `max_boost` of their range higher.

        A creation time in the future counts as now.
        """
        value_N = candidates.value_N
        if not len(value_N):
            return value_N
        span = float(value_N.max()) - float(value_N.min())
        age_s_N = np.maximum(self.now_s - candidates.created_at_N, 0.0)
        boost_N = np.exp2(age_s_N * (-1.0 / self.half_life_s))
        return value_N + (self.max_boost * span * boost_N).astype(np.float32)
