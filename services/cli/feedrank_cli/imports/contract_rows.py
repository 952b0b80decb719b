"""Pieces of a file as rows of contracts, and why some cannot be. Pure: no file, no clock."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
from feedrank_core.contracts.topics import TOPICS
from feedrank_core.runtime.lake_schema import contract_schema
from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import from_json, to_json

from feedrank_cli.imports.checking import HAPPENED, doubtful, filled
from feedrank_cli.imports.mapping import Mapping
from feedrank_cli.imports.pieces import Piece, Refusal, Row

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SHOWN = 2000
_JSON = "_json"


@dataclass
class Batch:
    """Rows of one topic, each with the number of the row it came from. Shapes: `number_N`."""

    topic: str
    rows: pa.Table | list[dict[str, Any]]
    number_N: np.ndarray


@dataclass
class Sorted:
    """What a piece holds: batches in the order of their topics, and what was refused."""

    batches: list[Batch] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)


def kind_of(values: dict[str, Any]) -> str:
    """The topic of a row, by the field that only its kind has."""
    if "event_type" in values:
        return "impressions" if values["event_type"] == "impression" else "interactions"
    if "item_type" in values:
        return "items"
    return "slates" if "served_at" in values else "users"


def for_lake(piece: Piece, topic: str | None, mapping: Mapping | None, identity: str) -> Sorted:
    """Rows that hold their contract, as the lake takes them. `identity` stands for the file."""
    if piece.table is not None and mapping is None and topic is not None:
        try:
            return _by_column(piece, piece.table, topic)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            pass  # One value at least is of another type: row by row it can be told which.
    found = Sorted(refusals=list(piece.broken))
    valid: dict[str, list[tuple[int, dict[str, Any]]]] = defaultdict(list)
    for row in _named(piece, topic, mapping, identity, found):
        assert row.topic is not None
        try:
            valid[row.topic].append((row.number, _held(row.topic, row.values)))
        except ValidationError as error:
            found.refusals.append(_refusal(row, why(error)))
    for name, rows in valid.items():
        numbers = np.array([number for number, _ in rows])
        found.batches.append(Batch(name, [values for _, values in rows], numbers))
    return found


def for_intake(piece: Piece, topic: str | None, mapping: Mapping | None, identity: str) -> Sorted:
    """Rows as a client sends them; the intake itself checks them."""
    found = Sorted(refusals=list(piece.broken))
    sent: dict[str, list[tuple[int, dict[str, Any]]]] = defaultdict(list)
    for row in _named(piece, topic, mapping, identity, found):
        assert row.topic is not None
        values = {name: v for name, v in row.values.items() if name != "accepted_at"}
        if row.topic == "impressions":
            values.setdefault("event_type", "impression")
        sent[row.topic].append((row.number, values))
    for name, rows in sent.items():
        numbers = np.array([number for number, _ in rows])
        found.batches.append(Batch(name, [values for _, values in rows], numbers))
    return found


def why(error: ValidationError) -> str:
    """Field and message of what is wrong first."""
    first = error.errors(include_url=False, include_context=False)[0]
    name = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    return f"{name}: {message}" if name else message


def _by_column(piece: Piece, table: pa.Table, topic: str) -> Sorted:
    whole = filled(topic, table)
    number_N = np.arange(piece.end - table.num_rows + 1, piece.end + 1)
    good = np.ones(table.num_rows, dtype=bool)
    found = Sorted(refusals=list(piece.broken))
    doubted = np.flatnonzero(doubtful(topic, whole))
    for index, values in zip(doubted, _python_rows(whole.take(doubted)), strict=True):
        try:
            _held(topic, values)
        except ValidationError as error:
            good[index] = False
            found.refusals.append(_refusal(Row(int(number_N[index]), values), why(error)))
    kept = whole if good.all() else whole.filter(pa.array(good))
    if kept.num_rows:
        found.batches.append(Batch(topic, kept, number_N[good]))
    return found


def _named(
    piece: Piece, topic: str | None, mapping: Mapping | None, identity: str, found: Sorted
) -> Iterator[Row]:
    """Rows in the fields of their contracts; those that no mapping takes are refused."""
    for row in _rows(piece):
        if mapping is None:
            name = row.topic or topic or kind_of(row.values)
            yield Row(row.number, row.values, name)
            continue
        try:
            topics = [name for name in mapping.sections if mapping.takes(name, row.values)]
        except KeyError as error:
            found.refusals.append(_refusal(row, f"where: {error.args[0]}"))
            continue
        if not topics:
            found.refusals.append(_refusal(row, "no `where` of the mapping takes it"))
        for name in topics:
            try:
                values = mapping.row(name, row.values, number=row.number, identity=identity)
                yield Row(row.number, values, name)
            except ValueError as error:
                found.refusals.append(_refusal(row, f"{name}.{error}"))


def _rows(piece: Piece) -> Iterator[Row]:
    if piece.table is None:
        yield from piece.rows
        return
    first = piece.end - piece.table.num_rows + 1
    for number, values in enumerate(_python_rows(piece.table), start=first):
        yield Row(number, values)


def _python_rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    """Rows of a table; an instant beyond the calendar stays a number, which no contract takes."""
    columns = {name: _python_column(table.column(name)) for name in table.column_names}
    for values in zip(*columns.values(), strict=True):
        yield dict(zip(columns, values, strict=True))


def _python_column(column: pa.ChunkedArray) -> list[Any]:
    if not pa.types.is_timestamp(column.type):
        return column.to_pylist()
    # Nanoseconds are cut: no contract holds them.
    micros = column.cast(pa.timestamp("us", column.type.tz), safe=False).cast(pa.int64())
    aware = column.type.tz is not None
    return [None if us is None else _instant(us, aware) for us in micros.to_pylist()]


def _instant(micros: int, aware: bool) -> datetime | int:
    try:
        moment = _EPOCH + timedelta(microseconds=micros)
    except OverflowError:
        return micros
    return moment if aware else moment.replace(tzinfo=None)


def _held(topic: str, values: dict[str, Any]) -> dict[str, Any]:
    """The row as its contract holds it. Raises: pydantic.ValidationError."""
    model = TOPICS[topic].model
    row: dict[str, Any] = {}
    for column, value in values.items():
        name = column.removesuffix(_JSON) if column in _json_columns(topic) else column
        info = model.model_fields.get(name)
        if value is None and info is not None and not _takes_null(info):
            continue  # a null where the contract has a default is a value that was left out
        row[name] = _parsed(value) if name != column and isinstance(value, str) else value
    happened = HAPPENED.get(topic)
    if happened is not None and row.get("accepted_at") is None and happened in row:
        row["accepted_at"] = row[happened]
    text = to_json(row, inf_nan_mode="constants")
    return model.model_validate_json(text, strict=True).model_dump()


@lru_cache
def _json_columns(topic: str) -> frozenset[str]:
    return frozenset(name for name in contract_schema(topic).names if name.endswith(_JSON))


def _takes_null(info: FieldInfo) -> bool:
    return info.is_required() or info.default is None


def _parsed(text: str) -> Any:
    """What a JSON text says; a text that says nothing stays one, which no contract takes."""
    try:
        return from_json(text)
    except ValueError:
        return text


def _refusal(row: Row, reason: str) -> Refusal:
    text = orjson.dumps(row.values, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
    return Refusal(row.number, reason, text[:_SHOWN])
