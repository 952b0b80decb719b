"""What a user may be offered: not seen, not inactive, not the user's own; the best of it."""

from __future__ import annotations

import numpy as np


def allowed(
    index_BK: np.ndarray,
    *,
    seen: tuple[np.ndarray, np.ndarray],
    active_N: np.ndarray,
    creator_N: np.ndarray,
    own_creator_B: np.ndarray,
) -> np.ndarray:
    """Which found items stay. `seen` is (row, dense index) pairs. Shapes: (B, K) bool."""
    found_BK = index_BK >= 0
    safe_BK = np.where(found_BK, index_BK, 0)
    stays_BK = found_BK & active_N[safe_BK] & (creator_N[safe_BK] != own_creator_B[:, None])
    row, index = seen
    num_items = len(active_N)
    code_BK = np.arange(len(index_BK))[:, None] * np.int64(num_items) + safe_BK
    return stays_BK & ~np.isin(code_BK, row * np.int64(num_items) + index)


def best(
    index_BK: np.ndarray, score_BK: np.ndarray, allowed_BK: np.ndarray, count: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """The first `count` allowed of each row, in the order found."""
    keep_BK = allowed_BK & (np.cumsum(allowed_BK, axis=1) <= count)
    return [
        (index[keep], score[keep])
        for index, score, keep in zip(index_BK, score_BK, keep_BK, strict=True)
    ]


def recall(found_BK: np.ndarray, exact_BK: np.ndarray) -> float:
    """Share of the exact best that was found, over all rows."""
    hits = sum(
        len(np.intersect1d(found, exact)) for found, exact in zip(found_BK, exact_BK, strict=True)
    )
    return hits / max(1, exact_BK.size)
