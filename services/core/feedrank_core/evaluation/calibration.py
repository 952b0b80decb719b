"""Metrics of probabilities over many impressions together: calibration error, log loss."""

from __future__ import annotations

import numpy as np

MAX_BINS = 10
EVENTS_PER_BIN = 200
"""At least: of fewer, chance alone puts what comes a tenth from what was foretold."""
SMALLEST = 1e-7


def calibration_error(predicted_R: np.ndarray, label_R: np.ndarray) -> float:
    """Mean distance of what is foretold and what comes, over bins of equally many impressions.

    Rare events have fewer bins. Chance gives also the truth a distance: set it beside.
    Source: Naeini et al. 2015, with bins of equal mass, since most rates here are small.
    """
    bins = int(np.clip((label_R > 0).sum() // EVENTS_PER_BIN, 1, MAX_BINS))
    order = np.argsort(predicted_R, kind="stable")
    parts = np.array_split(order, bins)
    gaps = [
        len(part) * abs(float(predicted_R[part].mean(dtype=np.float64) - label_R[part].mean()))
        for part in parts
        if len(part)
    ]
    return sum(gaps) / len(label_R)


def log_loss(predicted_R: np.ndarray, label_R: np.ndarray) -> float:
    """Mean negative log-likelihood of labels of 0 and 1."""
    p = np.clip(predicted_R.astype(np.float64), SMALLEST, 1 - SMALLEST)
    return float(-(label_R * np.log(p) + (1 - label_R) * np.log1p(-p)).mean())
