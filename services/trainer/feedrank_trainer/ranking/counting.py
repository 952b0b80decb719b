"""Decayed sums as they stood just before a time: the counters of the past, for any key."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np


def sums_before(
    key_E: np.ndarray,
    at_E: np.ndarray,
    values_E: Mapping[str, np.ndarray],
    half_lives_s: Mapping[str, float],
    *,
    key_Q: np.ndarray,
    at_Q: np.ndarray,
) -> dict[str, np.ndarray]:
    """What each key's events strictly before a time weigh then, by value and half-life.

    Names are those of the value and the half-life with `_` between. Times are Unix seconds, keys
    int64. Forward decay: all weights are as of the last time, which holds for half-lives that are
    not many times shorter than the log. Shapes: (E,) each, to (Q,) float32 each.
    """
    key = np.concatenate([key_Q, key_E])
    at_s = np.concatenate([at_Q, at_E])
    # Stable: of one instant the questions, which stand first, come before the events.
    order = np.lexsort((at_s, key))
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    asked = place[: len(key_Q)]
    first = np.searchsorted(key[order], key_Q, side="left")
    last_s = at_s.max(initial=0.0)
    found: dict[str, np.ndarray] = {}
    for span, half_life_s in half_lives_s.items():
        weight_E = np.exp2((at_E - last_s) / half_life_s)
        grown_Q = np.exp2((last_s - at_Q) / half_life_s)
        for name, value_E in values_E.items():
            weights = np.zeros(len(order))
            weights[place[len(key_Q) :]] = value_E * weight_E
            total = np.concatenate([[0.0], np.cumsum(weights)])
            sums = np.maximum(total[asked] - total[first], 0.0)
            found[f"{name}_{span}"] = (sums * grown_Q).astype(np.float32)
    return found
