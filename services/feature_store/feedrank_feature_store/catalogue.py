"""The catalogue at one time: every item as published, and how it has fared, in Ibis."""

# Ibis types a column by its name as Column, without operators; its backend checks them instead.
# pyright: reportOperatorIssue=false, reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false

from __future__ import annotations

from datetime import datetime
from typing import Any

import ibis
import ibis.expr.types as ir
from feedrank_core.contracts.features import COUNTER_COLUMNS, ITEM_PROFILE_COLUMNS, Counter
from feedrank_core.features import quality as q

from feedrank_feature_store.batch_counters import snapshot
from feedrank_feature_store.events import seconds_of

DAY_S = 86_400.0
SMALLEST_MEAN = 1e-6
"""Stands for the mean value of a catalogue in which nothing happened yet."""


def catalogue(log: ir.Table, items: ir.Table, as_of: datetime) -> ir.Table:
    """One row an item: profile, decayed counters, popularity, quality and age at `as_of`.

    `profile_at` is when the profile was accepted. Plain counter names stand beside the decayed
    ones for all there ever was.
    """
    counted = snapshot(log, "item_key", as_of)
    joined = items.left_join(counted, "item_key").drop("item_key_right")
    filled = joined.mutate(**{name: joined[name].fill_null(0.0) for name in COUNTER_COLUMNS})
    counts: dict[Counter, Any] = {c: filled[f"{c.value}_forever"] for c in Counter}
    rated = filled.mutate(
        **{c.value: counts[c] for c in Counter},
        popularity=q.popularity(filled.engagements_7d, filled.engagements_forever),
        age_days=_age_days(filled.created_at, as_of),
        quality=_quality(counts),
        profile_at=filled.accepted_at,
        as_of=ibis.literal(as_of.isoformat()).cast("timestamp('UTC', 6)"),
    )
    return rated.select(
        "item_id",
        "item_key",
        *ITEM_PROFILE_COLUMNS,
        "popularity",
        "quality",
        "age_days",
        *(c.value for c in Counter),
        *COUNTER_COLUMNS,
        "profile_at",
        "as_of",
    ).order_by("item_key")


def _age_days(created_at: Any, as_of: datetime) -> Any:
    age_s = ibis.literal(as_of.timestamp()) - seconds_of(created_at)
    return ibis.greatest(age_s / DAY_S, 0.0)


def _quality(counts: dict[Counter, Any]) -> Any:
    value = q.value_of(counts)
    acted = sum(counts[c] for c, worth in q.VALUES.items() if worth > 0)
    exposures = ibis.greatest(counts[Counter.IMPRESSIONS], acted)
    everything = ibis.window()
    mean = value.sum().over(everything) / ibis.greatest(exposures.sum().over(everything), 1.0)
    mean = ibis.greatest(mean, SMALLEST_MEAN)
    return q.quality(value, counts[Counter.REPORTS], exposures, mean).clip(0.0, 1.0)
