"""Decayed sums as they stood just before a time: the counters of the past, for any key."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

BLOCK_HALF_LIVES = 8.0
"""What one running sum spans. It runs over all keys, so its rounding grows with what the newest
event weighs beside the oldest: 256 here, and 2^52 where one sum would span a year of a week's."""


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
    int64. Forward decay: weights are as of the beginning of a block of time, and what a key had
    before it is carried over. Shapes: (E,) each, to (Q,) float32 each.
    """
    num_asked = len(key_Q)
    key = np.concatenate([key_Q, key_E])
    at_s = np.concatenate([at_Q, at_E])
    # Stable: of one instant the questions, which stand first, come before the events.
    order = np.lexsort((at_s, key))
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    asked, told = place[:num_asked], place[num_asked:]
    key, since_s = key[order], at_s[order] - at_s.min(initial=np.inf)
    found: dict[str, np.ndarray] = {}
    for span, half_life_s in half_lives_s.items():
        passed = since_s / half_life_s
        block = np.floor(passed / BLOCK_HALF_LIVES)
        within = passed - BLOCK_HALF_LIVES * block
        start, part = _parts(key, block)
        for name, value_E in values_E.items():
            weights = np.zeros(len(order))
            weights[told] = value_E * np.exp2(within[told])
            total = np.concatenate([[0.0], np.cumsum(weights)])
            carried = _carried(key[start[:-1]], block[start[:-1]], np.diff(total[start]))
            sums = np.maximum(total[asked] - total[start[part[asked]]], 0.0) + carried[part[asked]]
            found[f"{name}_{span}"] = (sums * np.exp2(-within[asked])).astype(np.float32)
    return found


def _parts(key: np.ndarray, block: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each key's block begins, and the end of all; and the part that a row lies in."""
    is_new = np.ones(len(key) + 1, bool)
    is_new[1:-1] = (np.diff(key) != 0) | (np.diff(block) != 0)
    return np.flatnonzero(is_new), np.cumsum(is_new[:-1]) - 1


def _carried(key_G: np.ndarray, block_G: np.ndarray, sum_G: np.ndarray) -> np.ndarray:
    """What a key's earlier blocks weigh when each of its blocks begins. Shapes: (G,) each."""
    carried_G = np.zeros(len(key_G))
    goes_on_G = np.r_[False, np.diff(key_G) == 0]
    for block in np.unique(block_G[goes_on_G]):
        here = np.flatnonzero(goes_on_G & (block_G == block))
        passed = BLOCK_HALF_LIVES * (block - block_G[here - 1])
        carried_G[here] = (carried_G[here - 1] + sum_G[here - 1]) * np.exp2(-passed)
    return carried_G
