"""Calibration: what a head's logits mean, learned from later slates than the head itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from feedrank_core.contracts.slates import HEADS, Head
from scipy import optimize
from scipy.special import expit

PULL = 100.0
"""Of slope and shift towards 1 and 0, as of so many events: the head itself has learned from more,
and what a few events say of a rare one is chance."""


@dataclass(frozen=True)
class Calibration:
    """A slope and a shift of every head's logits; of dwell, of the seconds' logarithm.

    Shapes: slope_H and shift_H (H,) float64. Source: Platt 1999.
    """

    slope_H: np.ndarray
    shift_H: np.ndarray

    @classmethod
    def fit(cls, logit_RH: np.ndarray, label_RH: np.ndarray) -> Calibration:
        """What makes these labels likeliest; heads that are not known keep their logits."""
        pairs = [
            _fitted(head, logit_RH[:, h].astype(np.float64), label_RH[:, h].astype(np.float64))
            for h, head in enumerate(HEADS)
        ]
        slope, shift = zip(*pairs, strict=True)
        return cls(np.array(slope), np.array(shift))

    def foretold(self, logit_RH: np.ndarray) -> np.ndarray:
        """Probabilities, and of dwell the expected log1p of seconds. Shapes: (R, H) float64."""
        found = logit_RH * self.slope_H + self.shift_H
        is_dwell_H = np.array([head is Head.DWELL for head in HEADS])
        return np.where(is_dwell_H, np.maximum(found, 0.0), expit(found))


def _fitted(head: Head, logit_R: np.ndarray, label_R: np.ndarray) -> tuple[float, float]:
    known = ~np.isnan(label_R)
    logit_R, label_R = logit_R[known], label_R[known]
    if not len(label_R):
        return 1.0, 0.0
    if head is Head.DWELL:
        design = np.stack([logit_R, np.ones_like(logit_R)], axis=1)
        slope, shift = np.linalg.lstsq(design, label_R, rcond=None)[0]
        return float(slope), float(shift)

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        slope, shift = parameters
        found = slope * logit_R + shift
        pull = PULL * np.array([slope - 1.0, shift])
        gap = expit(found) - label_R
        value = np.logaddexp(0.0, found).sum() - (label_R * found).sum()
        gradient = np.array([(gap * logit_R).sum(), gap.sum()])
        return value + float(pull @ pull) / (2 * PULL), gradient + pull

    start = np.array([1.0, 0.0])
    slope, shift = optimize.minimize(loss, start, jac=True, method="BFGS").x
    return float(slope), float(shift)
