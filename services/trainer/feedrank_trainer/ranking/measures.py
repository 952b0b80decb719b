"""How good a head is on later slates: order, calibration, and likelihood beside the base rate's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from feedrank_core.contracts.slates import Head
from feedrank_core.evaluation.calibration import calibration_error, log_loss
from feedrank_core.evaluation.ranking_metrics import pooled_auc


@dataclass(frozen=True)
class HeadMeasures:
    """Of one head. `error` is the calibration error over the base rate.

    `loss` is the log loss over that of the base rate, below 1 where the head says something; of
    dwell the squared error over the variance, its base rate the mean, and its AUC that of a view.
    """

    base_rate: float
    auc: float
    error: float
    loss: float


def measure_head(head: Head, foretold_R: np.ndarray, label_R: np.ndarray) -> HeadMeasures | None:
    """The measures over what is known of the head; None where nothing is, or nothing varies."""
    known = ~np.isnan(label_R)
    foretold_R, label_R = foretold_R[known], label_R[known].astype(np.float64)
    if not len(label_R) or label_R.min() == label_R.max():
        return None
    base = float(label_R.mean())
    if head is Head.DWELL:
        loss = float(np.square(foretold_R - label_R).mean() / label_R.var())
    else:
        loss = log_loss(foretold_R, label_R) / log_loss(np.full(len(label_R), base), label_R)
    return HeadMeasures(
        base_rate=base,
        auc=pooled_auc(foretold_R, label_R > 0),
        error=calibration_error(foretold_R, label_R) / base,
        loss=loss,
    )
