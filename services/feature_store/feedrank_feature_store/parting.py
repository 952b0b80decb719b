"""Finds the first event at which the stream and the batch part, from how their counters differ.

A counter's half-lives forget the same event at different speeds, so the differences of all five
tell what weight is missing or too much, and of when. An event fits when each half-life differs by
what it still weighs.
"""

# Ibis types a column by its name as Column, without operators; its backend checks them instead.
# pyright: reportOperatorIssue=false, reportArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
from feedrank_core.contracts.features import COUNTER_COLUMNS, HALF_LIVES_S, HISTORY_COLUMNS

from feedrank_feature_store.differences import Difference, Parting, Row

FITS = 1e-3
"""Relative; two events of one counter lie nearer than this only within seconds."""
ENTITY = {"user": "user_id", "item": "item_id"}


def parting_of(
    difference: Difference, stream: Row, batch: Row, moved: Any, as_of: datetime
) -> Parting | None:
    """Where the engines part in this feature, None where no event explains it.

    `stream` and `batch` are all features of the entity; `moved` is the log with what each event
    adds to each counter, as an Ibis table.
    """
    mine = moved.filter(moved[ENTITY[difference.kind]] == difference.entity)
    if difference.feature in COUNTER_COLUMNS:
        return _of_counter(difference.feature, stream, batch, mine, as_of)
    if difference.feature in HISTORY_COLUMNS:
        return _of_history(difference, mine)
    return None


def _of_counter(
    feature: str, stream: Row, batch: Row, mine: Any, as_of: datetime
) -> Parting | None:
    counter = feature.rsplit("_", 1)[0]
    names = [f"{counter}_{half_life}" for half_life in HALF_LIVES_S]
    delta_H = np.array([stream[name] - batch[name] for name in names])
    events = _events(mine.filter(mine[counter] != 0), counter)
    if not events:
        return None
    age_s_E = np.array([as_of.timestamp() - row["t"] for row in events])
    amount_E = np.array([row["amount"] for row in events])
    left_EH = amount_E[:, None] * np.exp2(-age_s_E[:, None] / np.array(list(HALF_LIVES_S.values())))
    later_EH = np.cumsum(left_EH[::-1], axis=0)[::-1]
    for weight_EH, sign, why in (
        (left_EH, -1.0, "the stream lacks it"),
        (left_EH, 1.0, "the stream counted it twice"),
        (later_EH, -1.0, "the stream lacks it and all that follow"),
    ):
        fits_E = np.isclose(delta_H, sign * weight_EH, rtol=FITS, atol=1e-6).all(axis=1)
        if fits_E.any():
            return _parting(events[int(np.argmax(fits_E))], why)
    return _parting(events[0], "no single event explains it; the first that moves the counter")


def _of_history(difference: Difference, mine: Any) -> Parting | None:
    """The first place at which the lists differ, as an event of the batch."""
    engaged = mine.filter(mine.engaged)
    events = _events(engaged, "engagements")[-len(difference.batch) :]
    for one, other, event in zip(difference.stream, difference.batch, events, strict=False):
        if one != other:
            return _parting(event, "the histories differ from here on")
    longer = len(difference.batch) > len(difference.stream)
    if longer and len(events) > len(difference.stream):
        return _parting(events[len(difference.stream)], "the stream lacks it")
    return None


def _events(mine: Any, amount: str) -> list[Row]:
    """The entity's events in the order of the log."""
    columns = mine.select("event_id", "at", "t", amount=mine[amount])
    return columns.order_by("at", "event_id").to_pyarrow().to_pylist()


def _parting(event: Row, why: str) -> Parting:
    return Parting(event["event_id"], event["at"].astimezone(UTC), why)
