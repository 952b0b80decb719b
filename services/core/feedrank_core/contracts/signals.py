"""What services tell each other about items and models: statistics, deltas, verdicts."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from feedrank_core.contracts.base import Message, Timestamp
from feedrank_core.contracts.ids import ExternalId


class ItemStats(Message):
    """How an item fares at `computed_at`: decayed counts by COUNTER_COLUMNS, those that are not 0.

    `popularity` and `quality` are those of `features.quality`.
    """

    item_id: ExternalId
    counters: dict[str, float]
    popularity: Annotated[float, Field(ge=0)] = 0.0
    quality: Annotated[float, Field(ge=0, le=1)]
    computed_at: Timestamp


class ModelDelta(Message):
    """A change to one item's bias or vector between two bundles, by online learning."""

    bundle: str
    item_id: ExternalId
    bias: float
    vector: tuple[float, ...] | None = None
    learned_at: Timestamp


class Severity(StrEnum):
    """How much a verdict matters."""

    OK = "ok"
    WARNING = "warning"
    CRITICAL = "critical"


class Verdict(Message):
    """One judgement of the drift monitor; `retrain` asks for the daily pipeline."""

    check: Annotated[str, Field(min_length=1)]
    severity: Severity
    bundle: str | None
    observed: float
    threshold: float
    num_rows: Annotated[int, Field(ge=0)]
    retrain: bool
    judged_at: Timestamp
