"""Columns are refused exactly where the contract's model refuses the row."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Annotated, Any

import pyarrow as pa
import pytest
from feedrank_cli.imports.checking import _breaks, doubtful, filled
from feedrank_cli.imports.contract_rows import for_lake
from feedrank_cli.imports.pieces import Piece
from feedrank_core.contracts.base import Message, Timestamp
from feedrank_core.contracts.slates import SCHEMA_VERSION
from feedrank_core.contracts.topics import TOPICS
from feedrank_core.runtime.lake_schema import contract_schema
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import AfterValidator, ValidationError
from pydantic_core import from_json, to_json

AT = datetime(2026, 1, 15, tzinfo=UTC)
EVENT = {
    "event_id": "e",
    "user_id": "u",
    "item_id": "i",
    "request_id": None,
    "session_id": "s",
    "position": 3,
    "surface": "home",
    "occurred_at": AT,
    "accepted_at": AT,
}
PLACE = '[{"item_id":"i","position":0,"source":"cached","scores":{},"value":1.0}]'
VALID: dict[str, dict[str, Any]] = {
    "impressions": EVENT | {"event_type": "impression"},
    "interactions": EVENT | {"event_type": "view", "dwell_s": 2.0},
    "items": {
        "item_id": "i",
        "item_type": "post",
        "creator_id": "c",
        "category": "music",
        "tags": ["a"],
        "language": "en",
        "text": "x",
        "created_at": AT,
        "duration_s": None,
        "text_vector": [0.5] * 64,
        "image_vector": None,
        "active": True,
        "accepted_at": AT,
    },
    "users": {
        "user_id": "u",
        "country": "DE",
        "age_band": "18-24",
        "platform": "ios",
        "interests": ["a"],
        "accepted_at": AT,
    },
    "slates": {
        "schema_version": 1,
        "request_id": "r",
        "session_id": "s",
        "user_id": "u",
        "surface": "home",
        "served_at": AT,
        "bundle": None,
        "arms_json": "{}",
        "degraded": ["model"],
        "user_vector": None,
        "features_json": '{"x": 1.5}',
        "items_json": PLACE,
        "accepted_at": AT,
    },
}
TEXTS = st.sampled_from(
    ["", "x", "de", "unknown", "view", "like", "x" * 64, "x" * 129, "x" * 10_001, "a\nb", "\u2028"]
) | st.text(max_size=3)
NUMBERS = st.sampled_from([0.0, -0.1, 1e5, 9e5, math.nan, math.inf, 86_400.0, 86_400.5])
JSON_TEXTS = st.sampled_from(
    ["{}", "[]", "", "null", "{", '{"x": "1"}', '{"x": NaN}', '{"x": 1}', PLACE, '[{"item_id": 1}]']
)
WHOLE = st.sampled_from([-1, 0, 1, 99_999, 100_000])


def values_of(field: pa.Field) -> st.SearchStrategy:
    """Values that Arrow takes in this column, good ones and bad ones."""
    if field.name.endswith("_json"):
        return st.none() | JSON_TEXTS
    return st.none() | by_type(field.type)


def by_type(kind: pa.DataType) -> st.SearchStrategy:
    if pa.types.is_string(kind):
        return TEXTS
    if pa.types.is_integer(kind):
        return WHOLE
    if pa.types.is_floating(kind):
        return NUMBERS
    if pa.types.is_boolean(kind):
        return st.booleans()
    if pa.types.is_timestamp(kind):
        return st.datetimes(timezones=st.just(UTC))
    few = st.lists(st.none() | by_type(kind.value_type), max_size=3)
    vectors = st.sampled_from([[0.5] * 64, [0.5] * 65, [0.5] * 63 + [math.inf]])
    labels = st.sampled_from([["x"] * 32, ["x"] * 33, ["x"] * 65])
    return few | (vectors if pa.types.is_floating(kind.value_type) else labels)


@st.composite
def changed_rows(draw: st.DrawFn) -> tuple[str, list[dict[str, Any]]]:
    """A topic and rows that are valid but for one field or two."""
    topic = draw(st.sampled_from(sorted(VALID)))
    fields = list(contract_schema(topic))
    rows = []
    for _ in range(draw(st.integers(1, 4))):
        changed = draw(st.lists(st.sampled_from(fields), max_size=2))
        rows.append(VALID[topic] | {f.name: draw(values_of(f)) for f in changed})
    return topic, rows


def model_refuses(topic: str, row: dict[str, Any]) -> bool:
    """What the contract says of a row of the lake, with its defaults in the place of null."""
    model = TOPICS[topic].model
    plain: dict[str, Any] = {}
    for name, value in row.items():
        info = model.model_fields[name.removesuffix("_json")]
        if value is None and not info.is_required() and info.default is not None:
            continue
        if name.endswith("_json") and value is not None:
            try:
                value = from_json(value)
            except ValueError:
                return True
        plain[name.removesuffix("_json")] = value
    if plain.get("accepted_at") is None:
        plain["accepted_at"] = plain.get("occurred_at", plain.get("created_at"))
    try:
        model.model_validate_json(to_json(plain, inf_nan_mode="constants"), strict=True)
    except ValidationError:
        return True
    return False


@settings(deadline=None)  # the first case builds validators and reads contracts
@given(changed_rows())
def test_a_row_is_refused_where_the_contract_refuses_it_and_nowhere_else(
    case: tuple[str, list[dict[str, Any]]],
) -> None:
    topic, rows = case
    table = pa.Table.from_pylist(rows, schema=contract_schema(topic))
    found = for_lake(Piece(end=10, advance=0, table=table), topic, None, "x")
    first = 10 - len(rows) + 1
    refused = {refusal.number - first for refusal in found.refusals}
    assert refused == {i for i, row in enumerate(rows) if model_refuses(topic, row)}
    kept = [n - first for batch in found.batches for n in batch.number_N.tolist()]
    assert sorted([*kept, *refused]) == list(range(len(rows)))


def test_a_slate_of_a_later_release_is_refused() -> None:
    slates = [VALID["slates"], VALID["slates"] | {"schema_version": SCHEMA_VERSION + 1}]
    table = pa.Table.from_pylist(slates, schema=contract_schema("slates"))
    found = for_lake(Piece(end=2, advance=0, table=table), "slates", None, "x")
    assert [refusal.number for refusal in found.refusals] == [2]


@pytest.mark.parametrize("topic", sorted(VALID))
def test_a_valid_row_is_not_looked_at_alone(topic: str) -> None:
    table = pa.Table.from_pylist([VALID[topic]], schema=contract_schema(topic))
    assert doubtful(topic, filled(topic, table)).tolist() == [False]


def test_every_rule_over_several_fields_is_known_to_the_columns() -> None:
    ruled = {name for name in VALID if TOPICS[name].model.__pydantic_decorators__.model_validators}
    assert ruled == {"interactions"}


def test_a_missing_column_takes_the_contracts_default_and_the_instant_it_happened() -> None:
    row = {k: v for k, v in VALID["interactions"].items() if k not in ("surface", "accepted_at")}
    (batch,) = for_lake(
        Piece(end=1, advance=0, table=pa.Table.from_pylist([row])), "interactions", None, "x"
    ).batches
    table: Any = batch.rows
    assert table["surface"].to_pylist() == ["home"]
    assert table["accepted_at"].to_pylist() == [AT]


def test_an_instant_beyond_the_calendar_is_refused() -> None:
    table = pa.Table.from_pylist([VALID["users"]], schema=contract_schema("users"))
    far = pa.array([300_000_000_000_000_000]).cast(pa.timestamp("us", "UTC"))
    table = table.set_column(table.schema.names.index("accepted_at"), "accepted_at", far)
    found = for_lake(Piece(end=1, advance=0, table=table), "users", None, "x")
    assert not found.batches
    assert "accepted_at" in found.refusals[0].reason


def not_on_new_years_day(at: datetime) -> datetime:
    if (at.month, at.day) == (1, 1):
        raise ValueError("must not be on New Year's Day")
    return at


class Closed(Message):
    """A contract with a function on its instant."""

    at: Annotated[Timestamp, AfterValidator(not_on_new_years_day)]


def test_a_function_on_instants_is_asked_as_one_on_texts_is() -> None:
    info = Closed.model_fields["at"]
    days = [AT, datetime(2026, 1, 1, tzinfo=UTC), None]
    column = pa.array(days, pa.timestamp("us", "UTC"))
    assert _breaks(column, info.annotation, info.metadata).to_pylist() == [False, True, None]
    far = pa.array([300_000_000_000_000_000]).cast(pa.timestamp("us", "UTC"))
    assert _breaks(far, info.annotation, info.metadata).to_pylist() == [True]


def test_one_value_of_another_type_costs_its_row_and_no_other() -> None:
    rows = [VALID["interactions"] | {"position": p} for p in ("1", "first", "2")]
    table = pa.Table.from_pylist([{k: v for k, v in r.items() if v is not None} for r in rows])
    found = for_lake(Piece(end=3, advance=0, table=table), "interactions", None, "x")
    assert {refusal.number for refusal in found.refusals} >= {2}
    assert "position" in found.refusals[0].reason
