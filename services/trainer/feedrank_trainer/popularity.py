"""The popular lists of a bundle: for everyone, and by country and platform."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from feedrank_core.contracts.bundle import PopularLists, segment_of
from feedrank_core.contracts.users import UNKNOWN

POPULAR_LENGTH = 500
"""As long as a reader's own candidates."""
HALF_LIFE_S = 7 * 86_400.0
MIN_SEGMENT_READERS = 20
"""Below, a segment's list would be the taste of a few people."""


def popular_lists(
    item: np.ndarray,
    at_s: np.ndarray,
    user: np.ndarray,
    segment_of_user: dict[int, str],
    *,
    active_N: np.ndarray,
    created_s_N: np.ndarray,
    as_of_s: float,
) -> PopularLists:
    """Active items by decayed engagements; the newest of the catalogue where nobody engaged."""
    weight = 2.0 ** (-np.maximum(as_of_s - at_s, 0) / HALF_LIFE_S)

    def ranked(rows: np.ndarray) -> tuple[int, ...]:
        score_N = np.bincount(item[rows], weights=weight[rows], minlength=len(active_N))
        order = np.lexsort((-created_s_N, -score_N))
        return tuple(order[active_N[order]][:POPULAR_LENGTH].tolist())

    rows_of: dict[str, list[int]] = defaultdict(list)
    for row, number in enumerate(user.tolist()):
        if (segment := segment_of_user.get(number)) is not None:
            rows_of[segment].append(row)
    segments = {
        segment: ranked(np.array(rows))
        for segment, rows in sorted(rows_of.items())
        if len(np.unique(user[rows])) >= MIN_SEGMENT_READERS
    }
    return PopularLists(everyone=ranked(np.arange(len(item))), segments=segments)


def segments(countries: list[str | None], platforms: list[str | None]) -> dict[int, str]:
    """The segment of each reader, by row."""
    return {
        row: segment_of(country or UNKNOWN, platform or UNKNOWN)
        for row, (country, platform) in enumerate(zip(countries, platforms, strict=True))
    }
