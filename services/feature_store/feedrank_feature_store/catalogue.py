"""The catalogue at one time: every item as published, and how it has fared, in Ibis."""

# Ibis types a column by its name as Column, without operators; its backend checks them instead.
# pyright: reportOperatorIssue=false, reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import ibis
import ibis.expr.types as ir
from feedrank_core.contracts.features import (
    COUNTER_COLUMNS,
    ITEM_PROFILE_COLUMNS,
    RATES,
    Counter,
    Priors,
)
from feedrank_core.features import quality as q

from feedrank_feature_store.batch_counters import snapshot
from feedrank_feature_store.events import increments, seconds_of

DAY_S = 86_400.0


def catalogue(log: ir.Table, items: ir.Table, *, priors: Priors, as_of: datetime) -> ir.Table:
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
        quality=q.quality(counts, priors.mean_value),
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


def prior_sums(log: ir.Table, items: ir.Table) -> ir.Table:
    """One row of sums over the catalogue: what `priors_from` divides.

    Columns: `value`, and each counter of RATES, each with its `<name>_exposures`.
    """
    moved = increments(log)
    counted = log.group_by("item_key").agg(**{name: m.sum() for name, m in moved.items()})
    published = counted.semi_join(items, "item_key")
    counts: dict[Counter, Any] = {c: published[c.value] for c in Counter}
    sums = {"value": q.value_of(counts), "value_exposures": q.valued_exposures(counts)}
    for name, counter in RATES.items():
        sums[name] = counts[counter]
        sums[f"{name}_exposures"] = q.exposures(counts[Counter.IMPRESSIONS], counts[counter])
    return published.agg(**{name: amount.sum().fill_null(0.0) for name, amount in sums.items()})


def priors_from(sums: Mapping[str, float], as_of: datetime) -> Priors:
    """The catalogue's means, from the row of `prior_sums`."""
    rates = {name: q.mean_rate(sums[name], sums[f"{name}_exposures"]) for name in RATES}
    mean = q.mean_value(sums["value"], sums["value_exposures"])
    return Priors(as_of=as_of, mean_value=mean, **rates)
