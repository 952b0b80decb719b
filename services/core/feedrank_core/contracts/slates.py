"""What was served, and how it came about: the gateway's log of one answer."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, Field

from feedrank_core.contracts.base import Message, Timestamp
from feedrank_core.contracts.events import Surface
from feedrank_core.contracts.ids import ExternalId

Probability = Annotated[float, Field(gt=0, le=1)]
SCHEMA_VERSION = 1


class Head(StrEnum):
    """What the ranker foretells of an impression, and the names of `SlateItem.scores`.

    Each is the probability that an impression leads to it, but `dwell`: the expected
    log1p of the seconds that the item is looked at.
    """

    CLICK = "click"
    LIKE = "like"
    SHARE = "share"
    COMMENT = "comment"
    FOLLOW = "follow"
    HIDE = "hide"
    REPORT = "report"
    DWELL = "dwell"


HEADS = tuple(Head)
"""In the order of the ranker's output."""


class Source(StrEnum):
    """Which candidate generator an item came from."""

    CACHED = "cached"
    LIVE = "live"
    FRESH = "fresh"
    TRENDING = "trending"
    FOLLOWED = "followed"
    EXPLORATION = "exploration"
    SEGMENT_POPULAR = "segment_popular"
    GLOBAL_POPULAR = "global_popular"


class Degraded(StrEnum):
    """Which part was missing when a feed was made, in the order of the fallback ladder.

    `bundle`: the one that should serve cannot be opened, and one before it does. The bus is none of
    these: a slate that it did not take makes no feed worse, and is counted as dropped.
    """

    MODEL = "model"
    CANDIDATES = "candidates"
    SERVED = "served"
    BUNDLE = "bundle"


class Draw(Message):
    """How a place that was drawn at random was filled."""

    pool: tuple[ExternalId, ...]
    probabilities: tuple[Probability, ...]


class SlateItem(Message):
    """One place of a slate. `propensity` is null where the place was not drawn at random."""

    item_id: ExternalId
    position: Annotated[int, Field(ge=0)]
    source: Source
    scores: dict[str, float]
    value: float
    propensity: Probability | None = None
    draw: Draw | None = None


def _require_known(version: int) -> int:
    if version > SCHEMA_VERSION:
        raise ValueError(f"{version} is newer than {SCHEMA_VERSION}, which this release reads")
    return version


class Slate(Message):
    """One answer of the gateway, as logged. Shapes: `user_vector` (64,)."""

    schema_version: Annotated[int, Field(ge=1), AfterValidator(_require_known)] = SCHEMA_VERSION
    request_id: ExternalId
    session_id: ExternalId
    user_id: ExternalId
    surface: Surface
    served_at: Timestamp
    bundle: str | None
    arms: dict[str, str] = {}
    degraded: tuple[Degraded, ...] = ()
    user_vector: tuple[float, ...] | None = None
    features: dict[str, float] = {}
    items: tuple[SlateItem, ...]
    accepted_at: Timestamp
