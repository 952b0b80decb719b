"""The columns of the lake's tables, derived from the contracts, and rows brought into them.

One rule a type: text and enums are strings, instants are microseconds in UTC, tuples of numbers
or text are lists, everything nested is one JSON text column `<field>_json`. A reader's `user_id`
never enters a topic's table: `user_key` stands in its place. An `item_id` brings `item_key`.
"""

# pyarrow.compute builds its functions at import, where pyright does not see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import types
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import orjson
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import AwareDatetime, BaseModel

from feedrank_core.contracts.ids import item_keys
from feedrank_core.contracts.topics import TOPICS

TIMESTAMP = pa.timestamp("us", tz="UTC")
USER_KEYS = "user_keys"
USER_KEYS_SCHEMA = pa.schema(
    [
        pa.field("user_id", pa.string()),
        pa.field("user_key", pa.int64()),
        # Whose the key's rows are: from after `since` up to and with `until`; null is unbounded.
        pa.field("since", TIMESTAMP),
        pa.field("until", TIMESTAMP),
    ]
)
USER_CHANGES = "user_changes"
USER_CHANGES_SCHEMA = pa.schema(
    [
        pa.field("change_id", pa.string()),
        pa.field("kind", pa.string()),
        pa.field("subject", pa.string()),
        pa.field("key_id", pa.string()),
        pa.field("at", TIMESTAMP),
        pa.field("state", pa.string()),
        # Random numbers, and nobody's once the order is settled: it then keeps none.
        pa.field("user_keys", pa.list_(pa.int64())),
        pa.field("removed", pa.int64()),
        pa.field("purge_at", TIMESTAMP),
    ]
)
NOT_FROM_BUS = -1
"""`topic_partition` and `topic_offset` of rows that were imported."""

_BOOKKEEPING = [
    pa.field("date", pa.date32()),
    pa.field("topic_partition", pa.int32()),
    pa.field("topic_offset", pa.int64()),
]
_JSON = "_json"
US_PER_DAY = 86_400_000_000


@lru_cache
def table_schema(topic: str) -> pa.Schema:
    """The Arrow schema of a topic's table. Raises: KeyError for an unknown topic."""
    fields: list[pa.Field] = []
    names = TOPICS[topic].model.model_fields
    for name, info in names.items():
        if name == "user_id":
            fields.append(pa.field("user_key", pa.int64()))
            continue
        kind = _arrow_type(info.annotation)
        fields.append(pa.field(name, kind) if kind else pa.field(name + _JSON, pa.string()))
        if name == "item_id":
            fields.append(pa.field("item_key", pa.int64()))
    return pa.schema(fields + _BOOKKEEPING)


@lru_cache
def contract_schema(topic: str) -> pa.Schema:
    """The columns of a topic as a client knows them: `user_id`, and nothing that the lake adds."""
    own = {"item_key", *(field.name for field in _BOOKKEEPING)}
    fields = [field for field in table_schema(topic) if field.name not in own]
    user = pa.field("user_id", pa.string())
    return pa.schema([user if field.name == "user_key" else field for field in fields])


def has_user(topic: str) -> bool:
    """Whether rows of this topic belong to a reader."""
    return "user_id" in TOPICS[topic].model.model_fields


def instant_column(topic: str) -> str:
    """The column that says from when on a row counts: `accepted_at`, for verdicts `judged_at`."""
    names = TOPICS[topic].model.model_fields
    return "accepted_at" if "accepted_at" in names else "judged_at"


def contract_table(topic: str, rows: pa.Table | Sequence[Mapping[str, Any]]) -> pa.Table:
    """Contract rows as the topic's columns, `user_id` still in the place of `user_key`.

    Columns that the rows lack are null, those of the bus -1. Raises: ValueError where a column
    cannot become what the table holds, or `accepted_at` is missing; the message names it.
    """
    source = rows if isinstance(rows, pa.Table) else None
    keep_user = pa.field("user_id", pa.string())
    columns, fields = [], []
    for field in table_schema(topic):
        wanted = keep_user if field.name == "user_key" else field
        fields.append(wanted)
        if wanted.name in ("date", "item_key"):
            columns.append(None)
        elif source is not None:
            columns.append(_from_table(source, wanted))
        else:
            columns.append(_from_rows(rows, wanted))  # pyright: ignore[reportArgumentType]
    by_name = {f.name: i for i, f in enumerate(fields)}
    moment = instant_column(topic)
    columns[by_name["date"]] = _date_of(moment, columns[by_name[moment]])
    if "item_key" in by_name:
        columns[by_name["item_key"]] = _keys_of(columns[by_name["item_id"]])
    return pa.table(columns, schema=pa.schema(fields))


def _arrow_type(annotation: Any) -> pa.DataType | None:
    """The column type of a field, or None where it is kept as JSON."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _arrow_type(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        rest = [a for a in get_args(annotation) if a is not type(None)]
        return _arrow_type(rest[0])
    if origin is Literal:
        return pa.string()
    if origin is tuple:
        inner = _arrow_type(get_args(annotation)[0])
        narrow = pa.float32() if inner == pa.float64() else inner
        return pa.list_(narrow) if narrow else None
    if not isinstance(annotation, type) or issubclass(annotation, BaseModel):
        return None
    for python, arrow in _SCALARS:
        if issubclass(annotation, python):
            return arrow
    return None


_SCALARS: tuple[tuple[Any, Any], ...] = (
    (bool, pa.bool_()),
    (int, pa.int64()),
    (float, pa.float64()),
    (StrEnum, pa.string()),
    (str, pa.string()),
    (datetime, TIMESTAMP),
    (AwareDatetime, TIMESTAMP),
)


def _from_rows(rows: Sequence[Mapping[str, Any]], field: pa.Field) -> pa.Array:
    if field.name in ("topic_partition", "topic_offset"):
        values: Iterable[Any] = (row.get(field.name, NOT_FROM_BUS) for row in rows)
    elif field.name.endswith(_JSON):
        name = field.name.removesuffix(_JSON)
        values = (_json(row.get(name)) for row in rows)
    else:
        values = (row.get(field.name) for row in rows)
    try:
        return pa.array(list(values), type=field.type)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, TypeError) as error:
        # TypeError also where orjson is given an integer that 64 bits do not hold.
        raise ValueError(f"{field.name}: {error}") from error


def _from_table(source: pa.Table, field: pa.Field) -> pa.Array | pa.ChunkedArray:
    name = field.name.removesuffix(_JSON) if field.name not in source.column_names else field.name
    if name not in source.column_names:
        fill = NOT_FROM_BUS if field.name in ("topic_partition", "topic_offset") else None
        return pa.repeat(pa.scalar(fill, field.type), source.num_rows)
    column = source.column(name)
    if name != field.name and not pa.types.is_string(column.type):
        return pa.array([_json(v) for v in column.to_pylist()], type=pa.string())
    if pa.types.is_timestamp(column.type) and column.type.tz is None:
        raise ValueError(f"{name}: times have no time zone; give them one")
    try:
        return column.cast(field.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise ValueError(f"{name}: {error}") from error


def _json(value: Any) -> str | None:
    return None if value is None else orjson.dumps(value).decode()


def _date_of(name: str, moments: Any) -> pa.Array | pa.ChunkedArray:
    if moments.null_count:
        raise ValueError(f"{name}: must not be null")
    days = pc.floor(pc.divide(pc.cast(pc.cast(moments, pa.int64()), pa.float64()), US_PER_DAY))
    return pc.cast(pc.cast(days, pa.int32()), pa.date32())


def _keys_of(item_ids: Any) -> pa.Array:
    """`item_key` of each id, hashing every distinct id once."""
    whole = item_ids.combine_chunks() if isinstance(item_ids, pa.ChunkedArray) else item_ids
    if whole.null_count:
        raise ValueError("item_id: must not be null")
    encoded = pc.dictionary_encode(whole)
    keys = item_keys(encoded.dictionary.to_pylist())
    return pa.array(keys, type=pa.int64()).take(encoded.indices)
