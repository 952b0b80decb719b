"""Calibration: what a head's logits mean, learned from later slates than the head itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from feedrank_core.contracts.slates import HEADS, Head
from scipy import optimize
from scipy.special import expit, log_expit

PULL = 100.0
"""Of both slopes and the shift towards 1 and 0, as of so many events: the head itself has learned
from more, and what a few events say of a rare one is chance."""
UNCHANGED = np.array([1.0, 1.0, 0.0])


@dataclass(frozen=True)
class Calibration:
    """Of every head: a slope of log p, one of -log(1 - p) and a shift make the calibrated logit.

    Two slopes, because what is looked at only now and then is clicked in a share of p, which no
    slope of the logit makes of it. Of dwell they are alike, and scale the seconds' logarithm.
    Shapes: weight_H3 (H, 3) float64.
    Source: Kull et al. 2017 (beta calibration).
    """

    weight_H3: np.ndarray

    @classmethod
    def fit(cls, logit_RH: np.ndarray, label_RH: np.ndarray) -> Calibration:
        """What makes these labels likeliest; heads that are not known keep their logits."""
        weights = [
            _fitted(head, logit_RH[:, h].astype(np.float64), label_RH[:, h].astype(np.float64))
            for h, head in enumerate(HEADS)
        ]
        return cls(np.stack(weights))

    def foretold(self, logit_RH: np.ndarray) -> np.ndarray:
        """Probabilities, and of dwell the expected log1p of seconds. Shapes: (R, H) float64."""
        foretold_RH = np.empty(logit_RH.shape)
        for h, head in enumerate(HEADS):
            found_R = _design(logit_RH[:, h].astype(np.float64)) @ self.weight_H3[h]
            foretold_RH[:, h] = np.maximum(found_R, 0.0) if head is Head.DWELL else expit(found_R)
        return foretold_RH


def _design(logit_R: np.ndarray) -> np.ndarray:
    """What adds up to the logit, log p and -log(1 - p), and 1. Shapes: (R, 3)."""
    columns = [log_expit(logit_R), -log_expit(-logit_R), np.ones_like(logit_R)]
    return np.stack(columns, axis=1)


def _fitted(head: Head, logit_R: np.ndarray, label_R: np.ndarray) -> np.ndarray:
    known = ~np.isnan(label_R)
    logit_R, label_R = logit_R[known], label_R[known]
    if not len(label_R):
        return UNCHANGED
    if head is Head.DWELL:
        design = np.stack([logit_R, np.ones_like(logit_R)], axis=1)
        slope, shift = np.linalg.lstsq(design, label_R, rcond=None)[0]
        return np.array([slope, slope, shift])
    design_R3 = _design(logit_R)

    def loss(weight_3: np.ndarray) -> tuple[float, np.ndarray]:
        found = design_R3 @ weight_3
        pull = PULL * (weight_3 - UNCHANGED)
        value = np.logaddexp(0.0, found).sum() - (label_R * found).sum()
        gradient = (expit(found) - label_R) @ design_R3
        return value + float(pull @ pull) / (2 * PULL), gradient + pull

    # A slope below 0 would turn the order round.
    bounds = [(0.0, None), (0.0, None), (None, None)]
    return optimize.minimize(loss, UNCHANGED, jac=True, method="L-BFGS-B", bounds=bounds).x
