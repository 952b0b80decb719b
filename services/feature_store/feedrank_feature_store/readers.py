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
    AFFINITY_LENGTH,
    COUNTER_COLUMNS,
    HALF_LIVES_S,
    HISTORY_LENGTH,
    RATES,
    SEEN_LENGTH,
    Counter,
    HalfLife,
)
from feedrank_core.contracts.users import UNKNOWN
from feedrank_core.features.quality import smoothed_rate

from feedrank_feature_store.batch_counters import snapshot


def readers(log: ir.Table, users: ir.Table, as_of: datetime) -> ir.Table:
    """One row for each user with a profile or an action. Lists are empty, never null.

    `profile_at` is when the profile was accepted, or the first action of a user without one.
    """
    first = log.group_by("user_id").agg(first_at=log.at.min())
    ids = users.select("user_id").union(first.select("user_id"), distinct=True)
    parts = [
        first,
        users.select("user_id", "country", "age_band", "platform", "interests", "accepted_at"),
        snapshot(log, "user_id", as_of),
        _affinity(log, "category", as_of),
        _affinity(log, "creator_id", as_of),
        _histories(log),
        _seen(log),
    ]
    joined = reduce(_left_join, parts, ids)
    filled = joined.mutate(**_defaults(joined))
    rated = filled.mutate(
        **{name: _rate(filled, counter) for name, counter in RATES.items()},
        profile_at=ibis.coalesce(filled.accepted_at, filled.first_at),
        as_of=ibis.literal(as_of.isoformat()).cast("timestamp('UTC', 6)"),
    )
    return rated.drop("first_at", "accepted_at").order_by("user_id")


def _left_join(left: ir.Table, right: ir.Table) -> ir.Table:
    return left.left_join(right, "user_id").drop("user_id_right")


def _defaults(joined: ir.Table) -> dict[str, Any]:
    text = {name: joined[name].fill_null(UNKNOWN) for name in ("country", "age_band", "platform")}
    counts = {name: joined[name].fill_null(0.0) for name in COUNTER_COLUMNS}
    lists = ("interests", "category_affinity", "creator_affinity", "hist_item_key")
    lists += ("hist_action", "hist_at", "seen", "top_categories", "top_category_shares")
    lists += ("top_creators", "top_creator_shares")
    empty = {
        name: ibis.coalesce(joined[name], ibis.literal([], type=joined[name].type()))
        for name in lists
    }
    return text | counts | empty


def _rate(filled: ir.Table, counter: Counter) -> Any:
    count = filled[f"{counter.value}_forever"]
    exposures = ibis.greatest(filled.impressions_forever, count)
    everything = ibis.window()
    mean = count.sum().over(everything) / ibis.greatest(exposures.sum().over(everything), 1.0)
    return smoothed_rate(count, exposures, mean)


_AFFINITY_NAMES = {"category": ("category", "categories"), "creator_id": ("creator", "creators")}


def _affinity(log: ir.Table, of: str, as_of: datetime) -> ir.Table:
    """The reader's share of engagements, decayed by the month, by `of`: the largest few.

    As pairs, and as two parallel lists because Feast has no lists of pairs.
    """
    engaged = log.filter(log.engaged, log[of].notnull())
    age_s = ibis.literal(as_of.timestamp()) - engaged.t
    weight = ibis.literal(2.0) ** (-age_s / HALF_LIVES_S[HalfLife.MONTH])
    by_value = engaged.group_by("user_id", key=engaged[of]).agg(weight=weight.sum())
    largest = ibis.window(group_by="user_id", order_by=[by_value.weight.desc(), by_value.key.asc()])
    share = by_value.weight / by_value.weight.sum().over(group_by="user_id")
    # A reader idle for decades has weights of zero; nothing is then known of the shares.
    share = ibis.ifelse(share.isnan(), 0.0, share)
    ranked = by_value.mutate(share=share, rank=ibis.row_number().over(largest))
    top = ranked.filter(ranked["rank"] < AFFINITY_LENGTH)
    member, plural = _AFFINITY_NAMES[of]
    pair = ibis.struct({of: top.key, "value": top.share})
    by_rank = top["rank"]
    return top.group_by("user_id").agg(
        **{
            f"{member}_affinity": pair.collect(order_by=by_rank),
            f"top_{plural}": top.key.collect(order_by=by_rank),
            f"top_{member}_shares": top.share.collect(order_by=by_rank),
        }
    )


def _histories(log: ir.Table) -> ir.Table:
    engaged = log.filter(log.engaged)
    newest = ibis.window(group_by="user_id", order_by=[engaged.at.desc(), engaged.event_id.desc()])
    ranked = engaged.mutate(rank=ibis.row_number().over(newest))
    last = ranked.filter(ranked["rank"] < HISTORY_LENGTH)
    oldest_first = last["rank"].desc()
    return last.group_by("user_id").agg(
        hist_item_key=last.item_key.collect(order_by=oldest_first),
        hist_action=last.action.collect(order_by=oldest_first),
        hist_at=last.at.collect(order_by=oldest_first),
    )


def _seen(log: ir.Table) -> ir.Table:
    by_item = log.group_by("user_id", "item_key").agg(at=log.at.max())
    newest = ibis.window(group_by="user_id", order_by=[by_item.at.desc(), by_item.item_key.desc()])
    ranked = by_item.mutate(rank=ibis.row_number().over(newest))
    last = ranked.filter(ranked["rank"] < SEEN_LENGTH)
    return last.group_by("user_id").agg(seen=last.item_key.collect(order_by=last["rank"].desc()))
