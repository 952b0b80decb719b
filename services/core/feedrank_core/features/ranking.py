"""The dense inputs of the ranker, of an item, of a reader and of both together; pure numpy.

Trainer and model server call the same functions, on counters as they stood when the slate was
served. Counts go in as log1p, rates as logarithms, so that a layer's sums are products of odds.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from feedrank_core.contracts.features import Counter, HalfLife, column
from feedrank_core.contracts.slates import Source
from feedrank_core.features.quality import smoothed_rate

Counters = Mapping[str, np.ndarray]
"""Decayed counters by their column; shapes broadcast."""

COUNTED = (
    Counter.IMPRESSIONS,
    Counter.VIEWS,
    Counter.CLICKS,
    Counter.LIKES,
    Counter.SHARES,
    Counter.COMMENTS,
    Counter.FOLLOWS,
    Counter.HIDES,
    Counter.REPORTS,
    Counter.DWELL_S,
)
SPANS = (HalfLife.WEEK, HalfLife.FOREVER)
DENSE_COLUMNS = tuple(
    f"{column(counter, span)}_{'log1p' if counter is Counter.IMPRESSIONS else 'log_rate'}"
    for span in SPANS
    for counter in COUNTED
)
"""What `counter_dense` gives of an item and of a reader, in its order. They are no counters, which
the towers read as log1p: `encode_user_dense` knows none of these names."""
PAIR_COUNTED = (Counter.IMPRESSIONS, Counter.VIEWS, Counter.CLICKS)
"""What is counted of a reader with a category, a tag, a creator or an item type."""
PERSONAL = (Source.CACHED, Source.LIVE, Source.FOLLOWED)
"""Sources that choose for one reader: what they chose before tells what is known of the reader."""
AFFINITIES = ("category", "tag", "creator", "item_type")

PRIOR_RATES: dict[Counter, float] = {
    Counter.VIEWS: 0.2,
    Counter.CLICKS: 0.05,
    Counter.LIKES: 0.01,
    Counter.SHARES: 0.003,
    Counter.COMMENTS: 0.003,
    Counter.FOLLOWS: 0.003,
    Counter.HIDES: 0.003,
    Counter.REPORTS: 0.001,
    Counter.DWELL_S: 2.0,
}
"""What an impression is thought to bring before anything is counted. Our own choice: the model
learns what a rate means, and these only say where it begins."""
PRIOR_SHARE = 0.02
"""Of a group in what was chosen for a reader, before anything was chosen. Our own choice."""
DAY_S = 86_400.0
TASTE_HALF_LIFE_S = 4 * DAY_S
FEW_ITEMS = 4.0
"""Items at which their mean weighs half: a few say little of a reader's taste. Our own choice."""


def counter_dense(counters: Counters, counted: tuple[Counter, ...] = COUNTED) -> np.ndarray:
    """Impressions as log1p and rates per impression as logarithms.

    Shapes: (...) each to (..., 2 * len(counted)) float32.
    """
    columns = []
    for span in SPANS:
        shown = counters[column(Counter.IMPRESSIONS, span)]
        columns.append(np.log1p(shown))
        for counter in counted:
            if counter is not Counter.IMPRESSIONS:
                count = counters[column(counter, span)]
                columns.append(np.log(smoothed_rate(count, shown, PRIOR_RATES[counter])))
    return np.stack(columns, axis=-1).astype(np.float32)


def chosen_dense(in_group: Counters, in_all: Counters) -> np.ndarray:
    """The logarithm of a group's share in what was chosen for a reader, by half-life.

    Shapes: (...) each to (..., 2) float32.
    """
    names = [column(Counter.IMPRESSIONS, span) for span in SPANS]
    shares = [smoothed_rate(in_group[name], in_all[name], PRIOR_SHARE) for name in names]
    return np.stack([np.log(share) for share in shares], axis=-1).astype(np.float32)


def age_dense(age_s: np.ndarray) -> np.ndarray:
    """How old an item is: as a logarithm, and as what is left of its youth.

    Shapes: (...) to (..., 3) float32.
    """
    age_days = np.maximum(age_s, 0.0) / DAY_S
    left = [np.exp2(-age_days / half) for half in (1.0, 4.0)]
    return np.stack([np.log1p(24 * age_days), *left], axis=-1).astype(np.float32)


def tastes(vector_BLD: np.ndarray, age_s_BL: np.ndarray, mask_BL: np.ndarray) -> np.ndarray:
    """The mean content of what a reader met, newer more, drawn to 0 as by FEW_ITEMS more of none.

    Contents are without the mean of all items. Shapes: (B, D) float32.
    """
    weight_BL = mask_BL * np.exp2(-age_s_BL / TASTE_HALF_LIFE_S)
    sum_BD = np.einsum("bl,bld->bd", weight_BL.astype(np.float32), vector_BLD)
    return sum_BD / (weight_BL.sum(axis=1, keepdims=True) + FEW_ITEMS).astype(np.float32)
