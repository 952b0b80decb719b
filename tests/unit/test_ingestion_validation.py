"""Properties of the intake's validation: what passes is a valid message, what fails is named."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from feedrank_core.contracts.api import MAX_FUTURE_S
from feedrank_core.contracts.events import InteractionType
from feedrank_core.contracts.topics import TOPICS
from feedrank_ingestion.routes import EVENTS, ITEM_BATCH, USER_BATCH
from feedrank_ingestion.validation import (
    InvalidBodyError,
    Kind,
    MalformedBodyError,
    take_batch,
)
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
KINDS = (EVENTS, ITEM_BATCH, USER_BATCH)

finite = st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
json_bodies = json_values.map(lambda value: json.dumps(value).encode())
good_ids = st.text(st.characters(categories=("L", "N", "P", "S", "M")), min_size=1, max_size=40)
good_events = st.fixed_dictionaries(
    {
        "event_id": good_ids,
        "event_type": st.sampled_from(["impression", *InteractionType]),
        "user_id": good_ids,
        "item_id": good_ids,
        "occurred_at": st.timedeltas(timedelta(0), timedelta(days=2000)).map(
            lambda ago: (NOW - ago).isoformat()
        ),
    }
).map(lambda e: e | ({"dwell_s": 3.5} if e["event_type"] == "view" else {}))
mutations = st.dictionaries(
    st.sampled_from(["event_id", "event_type", "user_id", "item_id", "occurred_at", "dwell_s"]),
    json_values,
    max_size=3,
)


def body_of(members: list[Any]) -> bytes:
    return json.dumps({"events": members}).encode()


@given(st.lists(good_events, min_size=1, max_size=20, unique_by=lambda e: e["event_id"]))
def test_good_events_all_pass_and_are_messages_of_their_topic(events: list[dict]) -> None:
    taken = take_batch(body_of(events), EVENTS, now=NOW)
    assert (taken.num_accepted, taken.rejected) == (len(events), [])
    for topic, records in taken.records.items():
        for record in records:
            message: Any = TOPICS[topic].model.model_validate_json(record.value or b"")
            assert message.accepted_at == NOW
            assert record.key == message.user_id


@given(st.lists(st.tuples(good_events, mutations), min_size=1, max_size=10))
def test_each_event_is_either_accepted_or_refused_with_a_reason(
    pairs: list[tuple[dict, dict]],
) -> None:
    events = [event | change for event, change in pairs]
    taken = take_batch(body_of(events), EVENTS, now=NOW)
    assert taken.num_accepted + len(taken.rejected) == len(events)
    assert [r.index for r in taken.rejected] == sorted({r.index for r in taken.rejected})
    assert all(": " in r.reason for r in taken.rejected)
    for topic, records in taken.records.items():
        for record in records:
            TOPICS[topic].model.model_validate_json(record.value or b"")


@given(st.lists(good_events, min_size=1, max_size=6), st.data())
def test_a_bad_event_changes_nothing_for_the_others(
    events: list[dict], data: st.DataObject
) -> None:
    alone = take_batch(body_of(events), EVENTS, now=NOW)
    place = data.draw(st.integers(0, len(events)))
    mixed = take_batch(body_of([*events[:place], {}, *events[place:]]), EVENTS, now=NOW)
    assert mixed.records == alone.records
    assert [r.index for r in mixed.rejected] == [place]


@given(
    st.sampled_from(KINDS),
    st.binary(max_size=200) | json_bodies,
)
def test_any_bytes_are_answered(kind: Kind, body: bytes) -> None:
    try:
        taken = take_batch(body, kind, now=NOW)
    except (MalformedBodyError, InvalidBodyError) as error:
        assert str(error)
    else:
        assert taken.num_accepted + len(taken.rejected) > 0


@pytest.mark.parametrize(("ahead_s", "passes"), [(0, True), (MAX_FUTURE_S, True), (301, False)])
def test_a_clock_may_run_five_minutes_ahead(ahead_s: float, passes: bool) -> None:
    event = {
        "event_id": "e",
        "event_type": "click",
        "user_id": "u",
        "item_id": "i",
        "occurred_at": (NOW + timedelta(seconds=ahead_s)).isoformat(),
    }
    taken = take_batch(body_of([event]), EVENTS, now=NOW)
    assert taken.num_accepted == passes
    assert passes or taken.rejected[0].reason.startswith("occurred_at: ")


def test_a_naive_accepted_at_can_never_be_sent() -> None:
    with pytest.raises(ValidationError):
        TOPICS["interactions"].model.model_validate_json(b'{"accepted_at": "2026-01-01T00:00:00"}')
