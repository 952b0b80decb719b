"""Readers at one time: profile, counters, rates, affinities, history and what was seen, in Ibis."""

# Ibis types a column by its name as Column, without operators; its backend checks them instead.
# pyright: reportOperatorIssue=false, reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false

from __future__ import annotations

from datetime import datetime
from functools import reduce
from typing import Any

import ibis
import ibis.expr.types as ir
from feedrank_core.contracts.features import (
    AFFINITY_COLUMNS,
    AFFINITY_LENGTH,
    COUNTER_COLUMNS,
    HISTORY_COLUMNS,
    HISTORY_LENGTH,
    RATES,
    SEEN_LENGTH,
    Counter,
    Priors,
)
from feedrank_core.contracts.users import UNKNOWN
from feedrank_core.features.affinity import TIE_DIGITS, weight
from feedrank_core.features.quality import rate

from feedrank_feature_store.batch_counters import snapshot_of_spans


def readers(
    log: ir.Table,
    spanned: ir.Table,
    users: ir.Table,
    items: ir.Table,
    *,
    priors: Priors,
    as_of: datetime,
) -> ir.Table:
    """One row for each user with a profile or an action. Lists are empty, never null.

    `log` is a placed one, `spanned` its spans.

    `profile_at` is when the profile was accepted, or the first action of a user without one.
    """
    first = log.group_by("user_id").agg(first_at=log.at.min())
    ids = users.select("user_id").union(first.select("user_id"), distinct=True)
    last = _last_engaged(log)
    parts = [
        first,
        users.select("user_id", "country", "age_band", "platform", "interests", "accepted_at"),
        snapshot_of_spans(spanned, "user_id", as_of),
        *(_affinity(last, items, of) for of in AFFINITY_COLUMNS),
        _histories(last),
        _seen(log),
    ]
    joined = reduce(_left_join, parts, ids)
    filled = joined.mutate(**_defaults(joined))
    rated = filled.mutate(
        **{name: _rate(filled, counter, getattr(priors, name)) for name, counter in RATES.items()},
        profile_at=ibis.coalesce(filled.accepted_at, filled.first_at),
        as_of=ibis.literal(as_of.isoformat()).cast("timestamp('UTC', 6)"),
    )
    return rated.drop("first_at", "accepted_at").order_by("user_id")


def _left_join(left: ir.Table, right: ir.Table) -> ir.Table:
    return left.left_join(right, "user_id").drop("user_id_right")


def _defaults(joined: ir.Table) -> dict[str, Any]:
    text = {name: joined[name].fill_null(UNKNOWN) for name in ("country", "age_band", "platform")}
    counts = {name: joined[name].fill_null(0.0) for name in COUNTER_COLUMNS}
    tastes = [name for columns in AFFINITY_COLUMNS.values() for name in columns]
    lists = ("interests", *HISTORY_COLUMNS, *tastes, "seen")
    empty = {
        name: ibis.coalesce(joined[name], ibis.literal([], type=joined[name].type()))
        for name in lists
    }
    return text | counts | empty


def _rate(filled: ir.Table, counter: Counter, prior: float) -> Any:
    return rate(filled[f"{counter.value}_forever"], filled.impressions_forever, prior)


def _last_engaged(log: ir.Table) -> ir.Table:
    """The actions of each reader's history; `rank` is 0 for the newest."""
    engaged = log.filter(log.engaged)
    newest = ibis.window(group_by="user_id", order_by=engaged.place.desc())
    ranked = engaged.mutate(rank=ibis.row_number().over(newest))
    return ranked.filter(ranked["rank"] < HISTORY_LENGTH)


def _histories(last: ir.Table) -> ir.Table:
    return last.group_by("user_id").agg(
        hist_item_key=_listed(last.item_key, by=last.place),
        hist_action=_listed(last.action, by=last.place),
        hist_at=_listed(last.at, by=last.place),
    )


def _affinity(last: ir.Table, items: ir.Table, of: str) -> ir.Table:
    """What `features.affinity.largest_shares` gives of each history."""
    named = last.join(items.select("item_key", name=items[of]), "item_key")
    age_s = named.t.max().over(group_by="user_id") - named.t
    weighed = named.select("user_id", "name", weight=weight(age_s))
    by_name = weighed.group_by("user_id", "name").agg(weight=weighed.weight.sum())
    by_name = by_name.mutate(share=by_name.weight / by_name.weight.sum().over(group_by="user_id"))
    order = [by_name.share.round(TIE_DIGITS).desc(), by_name.name.asc()]
    ranked = by_name.mutate(
        rank=ibis.row_number().over(ibis.window(group_by="user_id", order_by=order))
    )
    top = ranked.filter(ranked["rank"] < AFFINITY_LENGTH)
    names, shares = AFFINITY_COLUMNS[of]
    return top.group_by("user_id").agg(
        **{
            names: _listed(top.name, by=top["rank"]),
            shares: _listed(top.share, by=top["rank"]),
        }
    )


def _seen(log: ir.Table) -> ir.Table:
    by_item = log.group_by("user_id", "item_key").agg(place=log.place.max())
    newest = ibis.window(group_by="user_id", order_by=by_item.place.desc())
    ranked = by_item.mutate(rank=ibis.row_number().over(newest))
    last = ranked.filter(ranked["rank"] < SEEN_LENGTH)
    return last.group_by("user_id").agg(seen=_listed(last.item_key, by=last.place))


def _listed(value: Any, *, by: Any) -> Any:
    """The values of a group in the order of `by`; Spark has no ordered collect."""
    pairs = ibis.struct({"by": by, "value": value}).collect().sort()
    return pairs.map(lambda pair: pair["value"])
