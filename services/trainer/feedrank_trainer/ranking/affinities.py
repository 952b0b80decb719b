"""How near an item's content is to that of what its reader met: no weight has to be learned for it.

R impressions, S slates, L items of a list, N items, D dimensions of a content vector.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from feedrank_core.features.ranking import tastes

CHUNK = 2048
"""Slates whose lists are gathered at once."""
Listed = tuple[np.ndarray, np.ndarray]
"""Items (S, L) by slate with -1 for nothing, and their ages in seconds."""


def affinities(
    item_R: np.ndarray,
    start_S: np.ndarray,
    lists: Sequence[Listed],
    contents: Mapping[str, np.ndarray],
) -> np.ndarray:
    """Dot products of each item with its reader's tastes, by list and kind of content.

    `start_S` (S + 1,) says where each slate's impressions begin; contents (N, D) are 0 where an
    item has none. Shapes: (R, lists * contents) float32.
    """
    columns = []
    for vector_ND in contents.values():
        has_one_N = vector_ND.any(axis=1, keepdims=True)
        mean_D = vector_ND.sum(axis=0) / max(1, has_one_N.sum())
        centred_ND = (vector_ND - mean_D).astype(np.float32) * has_one_N
        columns += [_nearness(item_R, start_S, listed, centred_ND) for listed in lists]
    return np.stack(columns, axis=1) if columns else np.empty((len(item_R), 0), np.float32)


def _nearness(
    item_R: np.ndarray, start_S: np.ndarray, listed: Listed, content_ND: np.ndarray
) -> np.ndarray:
    """Shapes: (R,) float32."""
    items_SL, ages_SL = listed
    near_R = np.empty(len(item_R), np.float32)
    for first in range(0, len(items_SL), CHUNK):
        last = min(first + CHUNK, len(items_SL))
        items_BL = items_SL[first:last]
        taste_BD = tastes(content_ND[items_BL], ages_SL[first:last], items_BL >= 0)
        rows = slice(start_S[first], start_S[last])
        of_row = np.repeat(np.arange(last - first), np.diff(start_S[first : last + 1]))
        near_R[rows] = np.einsum("rd,rd->r", taste_BD[of_row], content_ND[item_R[rows]])
    return near_R
