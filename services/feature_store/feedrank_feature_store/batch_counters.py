"""Decayed counters in batch, as Ibis expressions: what `counters.fold` gives, over a whole log.

The state after an event is the sum over the entity's earlier events of w * 2^-(age / half_life).
Written as 2^-(t / half_life) times a prefix sum of w * 2^(t / half_life) it is one window, but
the powers overflow; so time is cut into blocks of BLOCK half-lives and t counts from its block's
start. An earlier block enters as one number, its total; of the block before that one, less than
2^-500 would be left.
"""

# Ibis types a column by its name as Column, without operators; its backend checks them instead.
# pyright: reportOperatorIssue=false, reportArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

from datetime import datetime
from typing import Any

import ibis
import ibis.expr.types as ir
from feedrank_core.contracts.features import HALF_LIVES_S, Counter, HalfLife, column

from feedrank_feature_store.events import increments

BLOCK = 500
"""Half-lives a block holds: 2^500 squared still fits a double (largest: 2^1023)."""

Amounts = dict[str, Any]


def snapshot(log: ir.Table, entity: str, as_of: datetime) -> ir.Table:
    """The counters of each entity as they stand at `as_of`: one row an entity."""
    age_s = ibis.literal(as_of.timestamp()) - log.t
    moved = increments(log)
    sums = {
        column(c, h): (moved[c.value] * _decay(age_s, h)).sum() for c in Counter for h in HalfLife
    }
    return log.group_by(entity).agg(**sums)


def states(log: ir.Table, entity: str) -> ir.Table:
    """The counters of each entity after each instant at which something happened to it.

    Columns: the entity, `event_timestamp`, the same as `counted_at` (the timestamp does not
    come back from Feast), and each of COUNTER_COLUMNS.
    """
    sums = {name: moved.sum() for name, moved in increments(log).items()}
    moved = log.group_by(entity, "at", "t").agg(**sums)
    running = moved.mutate(**_totals(moved, entity))
    for half_life in HALF_LIVES_S:
        if half_life is not HalfLife.FOREVER:
            running = _with_decayed(running, entity, half_life)
    names = [column(c, h) for c in Counter for h in HalfLife]
    return running.select(
        entity,
        event_timestamp=running.at,
        counted_at=running.at,
        **{name: running[name] for name in names},
    )


def _totals(moved: ir.Table, entity: str) -> Amounts:
    past = ibis.window(group_by=entity, order_by="at", rows=(None, 0))
    return {column(c, HalfLife.FOREVER): moved[c.value].sum().over(past) for c in Counter}


def _with_decayed(moved: ir.Table, entity: str, half_life: HalfLife) -> ir.Table:
    """`moved` with this half-life's columns."""
    half_life_s = HALF_LIVES_S[half_life]
    block = (moved.t / (BLOCK * half_life_s)).floor().cast("int64")
    blocked = moved.mutate(block=block)
    blocked = blocked.mutate(lives=blocked.t / half_life_s - blocked.block * float(BLOCK))
    grown = {c: blocked[c.value] * _power(blocked.lives) for c in Counter}
    totals = blocked.group_by(entity, "block").agg(
        **{f"carry_{c.value}": grown[c].sum() for c in Counter}
    )
    totals = totals.mutate(block=totals.block + 1)
    past = ibis.window(group_by=[entity, "block"], order_by="at", rows=(None, 0))
    prefixed = blocked.mutate(**{f"prefix_{c.value}": grown[c].sum().over(past) for c in Counter})
    joined = prefixed.left_join(totals, [entity, "block"])
    decayed = {
        column(c, half_life): (
            joined[f"prefix_{c.value}"] + joined[f"carry_{c.value}"].fill_null(0.0) * 2.0**-BLOCK
        )
        * _power(-joined.lives)
        for c in Counter
    }
    return joined.select(*(joined[name] for name in moved.columns), **decayed)


def _decay(age_s: Any, half_life: HalfLife) -> Any:
    if half_life is HalfLife.FOREVER:
        return 1.0
    return _power(-age_s / HALF_LIVES_S[half_life])


def _power(exponent: Any) -> Any:
    return ibis.literal(2.0) ** exponent
