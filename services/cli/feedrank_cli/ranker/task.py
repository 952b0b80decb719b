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

    Where a world knows them, the truths are the logits of each head's true probability at the first
    place, NaN for dwell: what the best ranking goes by, and blind to the position as the ranker is.
    Shapes: (R, H) each, of `tuning` and of `test`.
    """

    schema: FeatureSchema
    items: ItemInputs
    train: RankingExamples
    tuning: RankingExamples
    test: RankingExamples
    heads: tuple[Head, ...]
    tuning_truth_RH: np.ndarray | None = None
    test_truth_RH: np.ndarray | None = None
