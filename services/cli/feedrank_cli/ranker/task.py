"""A ranking task: impressions in order of time, cut into three, and what their items are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from feedrank_core.contracts.slates import Head
from feedrank_core.features.encoding import FeatureSchema
from feedrank_trainer.batching import ItemInputs
from feedrank_trainer.ranking.examples import RankingExamples


@dataclass(frozen=True)
class RankingTask:
    """Learned from, calibrated on and measured on; later slates each.

    `truth` holds the true probability of heads for each measured impression, where a world knows
    it, and `oracle` the true probability of a click at the first place, which is what the best
    ranking goes by. Shapes: (R,) each, of `test`.
    """

    schema: FeatureSchema
    items: ItemInputs
    train: RankingExamples
    tuning: RankingExamples
    test: RankingExamples
    heads: tuple[Head, ...]
    oracle: np.ndarray | None = None
    truth: dict[Head, np.ndarray] | None = None
