"""The stream takes the events that the lake takes, with the same values, and refuses the others."""

import json
from datetime import UTC, datetime, timedelta, timezone

import msgspec
import pytest
from feedrank_core.contracts.events import Impression, Interaction, InteractionType, Surface
from feedrank_core.contracts.topics import IMPRESSIONS, INTERACTIONS
from feedrank_core.runtime.bus import Record
from feedrank_core.runtime.dead_letters import reason_of
from feedrank_feature_store.stream.event_decoding import impression_of, interaction_of
from feedrank_feature_store.stream.inputs import from_records
from hypothesis import example, given, settings
from hypothesis import strategies as st
from poison_events import EVENT, POISON, T0
from pydantic import ValidationError

SHOWN = EVENT | {"event_type": "impression"}
VIEWED = EVENT | {
    "event_type": "view",
    "dwell_s": 2.5,
    "request_id": "r1",
    "session_id": "s1",
    "position": 3,
    "surface": "explore",
}
KINDS = (
    (Impression, impression_of, SHOWN),
    (Interaction, interaction_of, EVENT),
    (Interaction, interaction_of, VIEWED),
)


def outcome(decode, model, value: bytes) -> dict | str:
    """What an event of these bytes says, or why it is none."""
    try:
        event = decode(value)
    except ValidationError as error:
        return reason_of(error)
    return {name: getattr(event, name) for name in model.model_fields}


def assert_agree(model, decode, value: bytes) -> None:
    assert outcome(decode, model, value) == outcome(model.model_validate_json, model, value)


def written(moment: datetime, separator: str, end: str) -> str:
    """An instant in one of the ways in which others write it."""
    plain = moment.isoformat(separator)
    return plain.removesuffix("+00:00") + end if end else plain


zones = st.integers(-1439, 1439).map(lambda m: timezone(timedelta(minutes=m))) | st.just(UTC)
instants = st.builds(
    written,
    st.datetimes(timezones=zones | st.none()),
    st.sampled_from(["T", "t", " ", "_"]),
    st.sampled_from(["", "", "Z", "z", "+0000", "-00:00", "789Z", "+00"]),
)
ids = st.text(max_size=6) | st.sampled_from(["", "a" * 128, "a" * 129, "é" * 128, "a\u2028"])
numbers = st.floats() | st.integers() | st.sampled_from([0, -0.0, 99_999, 100_000, 86_400, "5"])
anything = st.none() | st.booleans() | numbers | ids | st.lists(st.integers(), max_size=2)
FIELDS = {
    **dict.fromkeys(("event_id", "user_id", "item_id", "request_id", "session_id"), ids),
    **dict.fromkeys(("occurred_at", "accepted_at"), instants | st.integers()),
    **dict.fromkeys(("position", "dwell_s"), numbers),
    "surface": st.sampled_from([*Surface, "Home"]),
    "event_type": st.sampled_from([*InteractionType, "impression", "VIEW"]),
    "mood": anything,
}
changes = st.fixed_dictionaries(
    {}, optional={name: values | anything for name, values in FIELDS.items()}
)


@settings(deadline=None, max_examples=400)
@given(st.sampled_from(KINDS), changes, st.booleans())
@example(KINDS[1], {"accepted_at": "2026-01-02T00:00:00.1234567Z"}, True)
@example(KINDS[1], {"accepted_at": "9999-12-31T23:59:59-14:00"}, True)
@example(KINDS[1], {"position": 100_000}, True)
@example(KINDS[1], {"dwell_s": -0.5}, True)
def test_a_changed_event_is_read_as_the_contract_reads_it(kind, changed, as_ascii):
    model, decode, good = kind
    value = json.dumps(good | changed, ensure_ascii=as_ascii).encode(errors="surrogatepass")
    assert_agree(model, decode, value)


@settings(deadline=None, max_examples=400)
@given(st.sampled_from(KINDS), st.data())
def test_damaged_bytes_are_read_as_the_contract_reads_them(kind, data):
    model, decode, good = kind
    value = json.dumps(good).encode()
    start = data.draw(st.integers(0, len(value)))
    end = data.draw(st.integers(start, min(start + 3, len(value))))
    inserted = data.draw(st.binary(max_size=3) | st.sampled_from([b"\\u0041", b'"', b"9", b"\xff"]))
    assert_agree(model, decode, value[:start] + inserted + value[end:])


def test_a_fraction_behind_an_escape_is_cut_off_like_any_other():
    value = json.dumps(EVENT | {"accepted_at": "2026-01-02T00:00:00.1234567Z"}).encode()
    assert_agree(Interaction, interaction_of, value.replace(b"00.12", b"00\\u002e12"))


@pytest.mark.parametrize(("model", "decode", "good"), KINDS)
def test_what_the_intake_writes_is_read_without_the_contracts_model(model, decode, good):
    event = decode(model.model_validate(good).model_dump_json().encode())
    assert isinstance(event, msgspec.Struct)


@pytest.mark.parametrize(("change", "reason"), POISON.values(), ids=POISON)
def test_what_the_lake_refuses_the_stream_refuses_with_the_same_reason(change, reason):
    values = [json.dumps(event).encode() for event in (EVENT | change, EVENT)]
    records = [Record(INTERACTIONS.name, 0, n, "u1", value, T0) for n, value in enumerate(values)]
    inputs = from_records(records)
    [(refused, said)] = inputs.refused
    assert refused == records[0]
    assert said.startswith(reason)
    assert len(inputs.events) == 1


def test_bytes_that_are_no_text_are_refused_and_the_rest_is_read():
    good = json.dumps(SHOWN).encode()
    values = [good.replace(b"u1", b"\xff"), good]
    records = [Record(IMPRESSIONS.name, 0, n, "u1", value, T0) for n, value in enumerate(values)]
    inputs = from_records(records)
    assert [record for record, _ in inputs.refused] == records[:1]
    assert len(inputs.events) == 1
