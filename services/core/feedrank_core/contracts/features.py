"""The registry of features: counters, half-lives and the columns of every feature table.

Columns that pass from one service to another are named here and nowhere else.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from feedrank_core.contracts.base import Message, Timestamp
from feedrank_core.contracts.events import ENGAGEMENTS, InteractionType
from feedrank_core.contracts.items import DWELL_THRESHOLD_S, ItemType

HISTORY_LENGTH = 50
"""Engaged actions a history holds, the design's choice."""
SEEN_LENGTH = 2000
"""Item keys that `seen` holds per user; fills the 16,000 bytes of the Redis key."""
AFFINITY_LENGTH = 10
"""Categories or creators kept per user."""


class Counter(StrEnum):
    """What is counted for a user and for an item. `dwell_s` sums seconds, the others count."""

    IMPRESSIONS = "impressions"
    VIEWS = "views"
    CLICKS = "clicks"
    LIKES = "likes"
    SHARES = "shares"
    COMMENTS = "comments"
    FOLLOWS = "follows"
    HIDES = "hides"
    REPORTS = "reports"
    ENGAGEMENTS = "engagements"
    DWELL_S = "dwell_s"


class HalfLife(StrEnum):
    """How fast a counter forgets, as it stands in a column's name."""

    HOUR = "1h"
    DAY = "1d"
    WEEK = "7d"
    MONTH = "30d"
    FOREVER = "forever"


HALF_LIVES_S: dict[HalfLife, float] = {
    HalfLife.HOUR: 3_600.0,
    HalfLife.DAY: 86_400.0,
    HalfLife.WEEK: 7 * 86_400.0,
    HalfLife.MONTH: 30 * 86_400.0,
    HalfLife.FOREVER: float("inf"),
}
"""Seconds until a counted event weighs half; infinite for plain totals."""

COUNTER_OF: dict[InteractionType, Counter] = {
    InteractionType.VIEW: Counter.VIEWS,
    InteractionType.CLICK: Counter.CLICKS,
    InteractionType.LIKE: Counter.LIKES,
    InteractionType.SHARE: Counter.SHARES,
    InteractionType.COMMENT: Counter.COMMENTS,
    InteractionType.FOLLOW: Counter.FOLLOWS,
    InteractionType.HIDE: Counter.HIDES,
    InteractionType.REPORT: Counter.REPORTS,
}
"""The counter that one interaction of a type moves by one."""


def column(counter: Counter, half_life: HalfLife) -> str:
    """The column of one decayed counter, such as `likes_7d`."""
    return f"{counter.value}_{half_life.value}"


COUNTER_COLUMNS: tuple[str, ...] = tuple(column(c, h) for c in Counter for h in HalfLife)
"""Every decayed counter, in the order in which tables hold them."""

RATES: dict[str, Counter] = {
    "click_rate": Counter.CLICKS,
    "like_rate": Counter.LIKES,
    "engagement_rate": Counter.ENGAGEMENTS,
}
"""Rates per impression ever shown, and what each counts; smoothed as `quality` says."""


class Priors(Message):
    """The catalogue's means at `as_of`, to which small numbers of observations are drawn.

    Each daily run writes them once, and both engines read what was last written (decision 7).
    The rates are those of RATES; `mean_value` is the worth of an impression, in clicks.
    """

    as_of: Timestamp
    mean_value: Annotated[float, Field(gt=0)]
    click_rate: Annotated[float, Field(ge=0, le=1)]
    like_rate: Annotated[float, Field(ge=0, le=1)]
    engagement_rate: Annotated[float, Field(ge=0, le=1)]


PRIORS = "priors.json"
"""The file of the Priors, beside the feature tables."""

USER_PROFILE_COLUMNS = ("country", "age_band", "platform", "interests")
HISTORY_COLUMNS = ("hist_item_key", "hist_action", "hist_at")
AFFINITY_COLUMNS = {
    "category": ("top_categories", "top_category_shares"),
    "creator_id": ("top_creators", "top_creator_shares"),
}
"""By what of the items a reader's tastes are told: the largest names, and their shares."""
ITEM_PROFILE_COLUMNS = (
    "item_type",
    "creator_id",
    "category",
    "tags",
    "language",
    "text",
    "created_at",
    "duration_s",
    "text_vector",
    "image_vector",
    "active",
)
ITEM_STATISTICS_COLUMNS = ("popularity", "quality", "age_days")


class Table(StrEnum):
    """Feature tables, by their file below `features/`."""

    CATALOGUE = "catalogue.parquet"
    USERS = "users.parquet"
    USER_PROFILES = "user_profiles.parquet"
    ENGAGEMENTS = "engagements.parquet"
    USER_COUNTERS = "user_counters.parquet"
    ITEM_COUNTERS = "item_counters.parquet"


def is_engaged(action: InteractionType, dwell_s: float | None, item_type: ItemType | None) -> bool:
    """Whether one interaction alone makes its item engaged.

    A view does above its item type's dwell threshold; of an unknown item it never does.
    """
    if action in ENGAGEMENTS:
        return True
    if action is not InteractionType.VIEW or dwell_s is None or item_type is None:
        return False
    return dwell_s > DWELL_THRESHOLD_S[item_type]


def increments(
    action: InteractionType | None, dwell_s: float | None, item_type: ItemType | None
) -> dict[Counter, float]:
    """What one event adds to each counter it moves; an `action` of None is an impression."""
    if action is None:
        return {Counter.IMPRESSIONS: 1.0}
    moved = {COUNTER_OF[action]: 1.0}
    if is_engaged(action, dwell_s, item_type):
        moved[Counter.ENGAGEMENTS] = 1.0
    if dwell_s:
        moved[Counter.DWELL_S] = dwell_s
    return moved
