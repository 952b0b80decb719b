"""The lake's events as one log, and what each adds to the counters, as Ibis expressions."""

# Ibis types a column by its name as Column, without operators; its backend checks them instead.
# pyright: reportOperatorIssue=false, reportArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

from typing import Any

import ibis
import ibis.expr.datatypes as dt
import ibis.expr.types as ir
from feedrank_core.contracts.events import ENGAGEMENTS, InteractionType
from feedrank_core.contracts.features import COUNTER_OF, Counter
from feedrank_core.contracts.items import DWELL_THRESHOLD_S

IMPRESSION = "impression"


def event_log(impressions: ir.Table, interactions: ir.Table, item_types: ir.Table) -> ir.Table:
    """One row an event: who, what, when, and whether it engages.

    A view does by the item's type as first published, if that was accepted by then.
    """
    shown = _common(impressions, action=ibis.literal(IMPRESSION), dwell_s=_no_dwell())
    done = _common(
        interactions, action=interactions.event_type, dwell_s=interactions.dwell_s.cast("float64")
    )
    known = item_types.select("item_key", "item_type", "published_at")
    log = shown.union(done).left_join(known, "item_key").drop("item_key_right")
    return log.mutate(engaged=_engaged(log), t=seconds_of(log.at)).drop("item_type", "published_at")


def placed(log: ir.Table) -> ir.Table:
    """The log with each event's `place` among its reader's, from 0, in the order of decision 7."""
    order = ibis.window(group_by="user_id", order_by=[log.at, log.event_id, log.action])
    return log.mutate(place=ibis.row_number().over(order))


def increments(log: ir.Table) -> dict[str, Any]:
    """What each event adds to each counter, by the counter's name."""
    return {c.value: _increment(log, c) for c in Counter}


@ibis.udf.scalar.builtin(signature=((dt.Timestamp(timezone="UTC", scale=6),), dt.int64))
def epoch_us(at: Any) -> Any:
    """Microseconds since 1970, by DuckDB: what Ibis has for it rounds to seconds there."""


def seconds_of(at: Any) -> Any:
    """Unix seconds of an instant with its microseconds."""
    # Spark reads a bare 1e6 as a decimal, and rounds what it divides by that.
    return epoch_us(at).cast("float64") / ibis.literal(1e6, "float64")


def engagements(log: ir.Table) -> ir.Table:
    """The engaged actions alone, by reader and time: what histories are made of."""
    engaged = log.filter(log.engaged).order_by("user_id", "place")
    return engaged.select(
        "user_id", "item_key", "item_id", "action", "at", "request_id", "event_id"
    )


def _common(events: ir.Table, *, action: Any, dwell_s: Any) -> ir.Table:
    return events.select(
        "event_id",
        "user_id",
        "item_id",
        "item_key",
        "request_id",
        at=events.accepted_at,
        action=action.cast("string"),
        dwell_s=dwell_s,
    )


def _no_dwell() -> Any:
    return ibis.null("float64")


def _engaged(log: ir.Table) -> Any:
    threshold_s = ibis.cases(
        *((log.item_type == kind.value, limit) for kind, limit in DWELL_THRESHOLD_S.items()),
        else_=_no_dwell(),
    )
    known = log.published_at <= log.at
    long_view = (log.action == InteractionType.VIEW.value) & known & (log.dwell_s > threshold_s)
    acted = log.action.isin(sorted(action.value for action in ENGAGEMENTS))
    return acted | long_view.fill_null(False)


def _increment(log: ir.Table, counter: Counter) -> Any:
    if counter is Counter.DWELL_S:
        return log.dwell_s.fill_null(0.0)
    if counter is Counter.ENGAGEMENTS:
        return log.engaged.cast("float64")
    actions = {c: action.value for action, c in COUNTER_OF.items()}
    return (log.action == actions.get(counter, IMPRESSION)).cast("float64")
