"""Decayed counters in batch, as Ibis expressions: what `counters.fold` gives, over a whole log.

A log is first added up over spans (`spans`): each begins at an instant at which the entity is
engaged with and ends before the next one, so the state at its end is what a label knows, and a
span is all that need be kept. Amounts of a span are decayed to its last event.

The state after a span is the sum over the entity's spans so far of w * 2^-(age / half_life).
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
from feedrank_core.contracts.features import (
    COUNTER_COLUMNS,
    HALF_LIVES_S,
    Counter,
    HalfLife,
    column,
)

from feedrank_feature_store.events import epoch_us, increments

BLOCK = 500
"""Half-lives a block holds: 2^500 squared still fits a double (largest: 2^1023)."""


def snapshot(log: ir.Table, entity: str, as_of: datetime) -> ir.Table:
    """The counters of each entity as they stand at `as_of`: one row an entity."""
    moved = increments(log)
    amounts = {column(c, h): moved[c.value] for c in Counter for h in HalfLife}
    return _sums_at(log, amounts, entity, as_of)


def spans(log: ir.Table, entity: str) -> ir.Table:
    """What each span of an entity adds to the counters, as it stands at the span's last event.

    Columns: the entity, `span`, `at` and `t` of its last event, and each of COUNTER_COLUMNS.
    """
    # By time, not by row: what shares an instant with an engagement belongs to its span.
    so_far = ibis.window(group_by=entity, order_by="t", range=(None, 0))
    cut = log.mutate(span=log.engaged.cast("int64").sum().over(so_far))
    ends = cut.group_by(entity, "span").agg(end_at=cut.at.max(), end_t=cut.t.max())
    dated = cut.join(ends, [entity, "span"])
    moved = increments(dated)
    weights = {h: _decay(dated.end_t - dated.t, h) for h in HalfLife}
    sums = {column(c, h): (moved[c.value] * weights[h]).sum() for c in Counter for h in HalfLife}
    return dated.group_by(entity, "span", at=dated.end_at, t=dated.end_t).agg(**sums)


def snapshot_of_spans(spanned: ir.Table, entity: str, as_of: datetime) -> ir.Table:
    """What `snapshot` gives, from the spans of the log."""
    return _sums_at(spanned, {name: spanned[name] for name in COUNTER_COLUMNS}, entity, as_of)


def states(spanned: ir.Table, entity: str) -> ir.Table:
    """The counters of each entity after each of its spans.

    So the last row strictly before an instant at which it was engaged with is all that was known
    by then; of other instants a row may be older than the last event.

    Columns: the entity, `event_timestamp`, the same in microseconds as `counted_at_us` (the
    timestamp does not come back from Feast), and each of COUNTER_COLUMNS.
    """
    running = spanned
    for half_life in HALF_LIVES_S:
        running = _accumulated(running, entity, half_life)
    return running.select(
        entity, *COUNTER_COLUMNS, event_timestamp=running.at, counted_at_us=epoch_us(running.at)
    ).order_by(entity, "event_timestamp")


def _sums_at(rows: ir.Table, amounts: dict[str, Any], entity: str, as_of: datetime) -> ir.Table:
    age_s = ibis.literal(as_of.timestamp()) - rows.t
    sums = {
        column(c, h): (amounts[column(c, h)] * _decay(age_s, h)).sum()
        for c in Counter
        for h in HalfLife
    }
    return rows.group_by(entity).agg(**sums)


def _accumulated(spanned: ir.Table, entity: str, half_life: HalfLife) -> ir.Table:
    """This half-life's columns, each row's amount replaced by the sum so far, decayed to it."""
    names = [column(c, half_life) for c in Counter]
    if half_life is HalfLife.FOREVER:
        past = ibis.window(group_by=entity, order_by="t", rows=(None, 0))
        return spanned.mutate(**{name: spanned[name].sum().over(past) for name in names})
    half_life_s = HALF_LIVES_S[half_life]
    blocked = spanned.mutate(block=(spanned.t / (BLOCK * half_life_s)).floor().cast("int64"))
    blocked = blocked.mutate(lives=blocked.t / half_life_s - blocked.block * float(BLOCK))
    grown = blocked.mutate(**{name: blocked[name] * _power(blocked.lives) for name in names})
    totals = grown.group_by(entity, "block").agg(
        **{f"carry_{name}": grown[name].sum() for name in names}
    )
    totals = totals.mutate(block=totals.block + 1)
    past = ibis.window(group_by=[entity, "block"], order_by="t", rows=(None, 0))
    prefixed = grown.mutate(**{name: grown[name].sum().over(past) for name in names})
    joined = prefixed.left_join(totals, [entity, "block"])
    decayed = {
        name: (joined[name] + joined[f"carry_{name}"].fill_null(0.0) * 2.0**-BLOCK)
        * _power(-joined.lives)
        for name in names
    }
    kept = [joined[name] for name in spanned.columns if name not in names]
    return joined.select(*kept, **decayed)


def _decay(age_s: Any, half_life: HalfLife) -> Any:
    if half_life is HalfLife.FOREVER:
        return 1.0
    return _power(-age_s / HALF_LIVES_S[half_life])


def _power(exponent: Any) -> Any:
    return ibis.literal(2.0) ** exponent
