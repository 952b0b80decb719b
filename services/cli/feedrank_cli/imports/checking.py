"""Whole columns held against a contract, so that only doubtful rows are looked at one by one.

The checks are read from the contract's own fields. They doubt a row too many rather than one too
few: the contract's model has the last word on each that is doubted.
"""

# pyarrow.compute builds its functions at import, where pyright does not see them.
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportArgumentType=false

from __future__ import annotations

import types
from collections.abc import Callable
from enum import StrEnum
from functools import lru_cache, partial, reduce
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types as at
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from feedrank_core.contracts.base import to_utc
from feedrank_core.contracts.topics import TOPICS
from feedrank_core.runtime.lake_schema import contract_schema
from pydantic import AfterValidator, ConfigDict, StringConstraints, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

HAPPENED = {"items": "created_at", "impressions": "occurred_at", "interactions": "occurred_at"}
"""The field that says from when a row of history counts, where `accepted_at` is not given."""
_JSON = "_json"
_CALENDAR_US = (-62_135_596_800_000_000, 253_402_300_799_999_999)
"""The years 1 to 9999, which is what an instant in Python can hold."""


def doubtful(topic: str, table: pa.Table) -> np.ndarray:
    """Rows that may break the contract. Shapes: (N,) bool. `table` has the contract's columns."""
    columns = {name: table.column(name).combine_chunks() for name in table.column_names}
    masks = [_doubts_of(topic, name, column) for name, column in columns.items()]
    rule = _MODEL_RULES.get(topic)
    if rule is not None:
        masks.append(rule(table))
    return np.asarray(reduce(np.logical_or, masks), dtype=bool)


def filled(topic: str, table: pa.Table) -> pa.Table:
    """The contract's columns, with its defaults where a value or the whole column is missing.

    History is accepted when it happened, where nothing else is said. Raises: pa.ArrowInvalid,
    pa.ArrowNotImplementedError where a column is of another type.
    """
    columns: dict[str, Any] = {}
    for field in contract_schema(topic):
        info = _info(topic, field.name)
        name = field.name if field.name in table.column_names else field.name.removesuffix(_JSON)
        if name in table.column_names:
            column = table.column(name).cast(field.type)
        else:
            column = pa.nulls(table.num_rows, field.type)
        if not info.is_required() and info.default is not None and column.null_count:
            default = pa.scalar(_plain(info.default, field), field.type)
            column = pc.if_else(pc.is_null(column), default, column)
        columns[field.name] = column
    if topic in HAPPENED:
        columns["accepted_at"] = pc.coalesce(columns["accepted_at"], columns[HAPPENED[topic]])
    return pa.table(columns, schema=contract_schema(topic))


def _doubts_of(topic: str, name: str, column: pa.Array) -> np.ndarray:
    info = _info(topic, name)
    null = _numpy(pc.is_null(column))
    allowed = type(None) in get_args(info.annotation)
    if name.endswith(_JSON):
        read = partial(_adapter(topic, name).validate_json, strict=True)
        bad = _numpy(_refused(column, read))
    else:
        bad = _numpy(_breaks(column, info.annotation, info.metadata))
    return (bad & ~null) | (null & (not allowed))


def _breaks(column: Any, annotation: Any, metadata: list[Any]) -> Any:
    """Where a value is outside what a type and its constraints allow; anything for null."""
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *more = get_args(annotation)
        listed = [m.metadata if isinstance(m, FieldInfo) else [m] for m in more]
        return _breaks(column, inner, [*metadata, *(m for some in listed for m in some)])
    if origin in (Union, types.UnionType):
        inner = next(a for a in get_args(annotation) if a is not type(None))
        return _breaks(column, inner, metadata)
    if origin is tuple:
        return _breaks_in_list(column, get_args(annotation)[0], metadata)
    never = pa.repeat(pa.scalar(False), len(column))
    checks = [c for constraint in metadata for c in _constraint(column, constraint)]
    if origin is Literal:
        checks.append(pc.invert(pc.is_in(column, pa.array(get_args(annotation)))))
    elif isinstance(annotation, type) and issubclass(annotation, StrEnum):
        checks.append(pc.invert(pc.is_in(column, pa.array([str(m) for m in annotation]))))
    elif annotation is float:
        checks.append(pc.invert(pc.is_finite(column)))
    elif pa.types.is_timestamp(column.type):
        checks.append(pc.invert(_is_within_calendar(column)))
    return reduce(pc.or_kleene, checks, never)


def _is_within_calendar(column: Any) -> Any:
    micros = column.cast(pa.int64())
    first, last = _CALENDAR_US
    return pc.and_(pc.greater_equal(micros, first), pc.less_equal(micros, last))


def _breaks_in_list(column: Any, member: Any, metadata: list[Any]) -> Any:
    """A list breaks its contract by its length or by one of its members."""
    members = pc.list_flatten(column)
    bad = pc.or_kleene(pc.is_null(members), _breaks(members, member, []))
    broken = np.zeros(len(column), dtype=bool)
    broken[_numpy(pc.list_parent_indices(column))[_numpy(bad)]] = True
    lengths = pc.list_value_length(column)
    for constraint in metadata:
        for check in _bounds(lengths, constraint):
            broken |= _numpy(check)
    return pa.array(broken)


def _constraint(column: Any, constraint: Any) -> list[Any]:
    """Where a value breaks one constraint. Raises: NotImplementedError for one not known here."""
    if isinstance(constraint, at.Gt | at.Ge | at.Lt | at.Le):
        return _limits(column, constraint)
    if isinstance(constraint, StringConstraints):
        parts = [at.MinLen(constraint.min_length or 0)]
        parts += [at.MaxLen(constraint.max_length)] if constraint.max_length is not None else []
        checks = [c for part in parts for c in _bounds(pc.utf8_length(column), part)]
        return checks + (_unlike(column, constraint.pattern) if constraint.pattern else [])
    if isinstance(constraint, at.MinLen | at.MaxLen):
        return _bounds(pc.utf8_length(column), constraint)
    pattern = getattr(constraint, "pattern", None)
    if pattern is not None:
        return _unlike(column, pattern)
    if isinstance(constraint, AfterValidator) and constraint.func is not to_utc:
        validate = TypeAdapter(Annotated[Any, constraint]).validate_python
        return [_refused(_within_calendar(column), validate)]
    if isinstance(constraint, AfterValidator) or type(constraint).__name__ in _TYPES_SEE_TO:
        return []
    raise NotImplementedError(
        f"a contract has a constraint that imports cannot check: {constraint!r}"
    )


def _within_calendar(column: Any) -> Any:
    """The column without instants that no function of Python could be asked about."""
    if not pa.types.is_timestamp(column.type):
        return column
    return pc.if_else(_is_within_calendar(column), column, pa.scalar(None, column.type))


def _refused(column: Any, validate: Callable[[Any], Any]) -> Any:
    """Where the contract refuses a value, null for null; every distinct one is looked at once."""
    encoded = pc.dictionary_encode(column)
    bad = [not _accepted(validate, value) for value in encoded.dictionary.to_pylist()]
    return pa.array(bad, pa.bool_()).take(encoded.indices)


def _limits(column: Any, constraint: Any) -> list[Any]:
    if isinstance(constraint, at.Gt):
        return [pc.less_equal(column, constraint.gt)]
    if isinstance(constraint, at.Ge):
        return [pc.less(column, constraint.ge)]
    if isinstance(constraint, at.Lt):
        return [pc.greater_equal(column, constraint.lt)]
    return [pc.greater(column, constraint.le)]


def _bounds(lengths: Any, constraint: Any) -> list[Any]:
    if isinstance(constraint, at.MinLen):
        return [pc.less(lengths, constraint.min_length)]
    if isinstance(constraint, at.MaxLen):
        return [pc.greater(lengths, constraint.max_length)]
    return []


def _unlike(column: Any, pattern: Any) -> list[Any]:
    """Beyond ASCII the two engines of expressions differ in what they take for assigned."""
    matches = pc.match_substring_regex(column, str(pattern))
    return [pc.invert(pc.and_kleene(matches, pc.string_is_ascii(column)))]


def _accepted(validate: Callable[[Any], Any], value: Any) -> bool:
    try:
        validate(value)
    except ValidationError:
        return False
    return True


def _view_without_dwell(table: pa.Table) -> np.ndarray:
    view = pc.equal(table.column("event_type"), "view")
    return _numpy(pc.and_kleene(view, pc.is_null(table.column("dwell_s"))))


_MODEL_RULES = {"interactions": _view_without_dwell}
"""Rules over several fields, which a contract has as a model validator."""
_TYPES_SEE_TO = frozenset({"WithJsonSchema", "Strict", "AllowInfNan"})
"""Constraints that a column's type holds already; `to_utc` too: instants in it have a zone."""


@lru_cache
def _adapter(topic: str, name: str) -> TypeAdapter:
    return TypeAdapter(_info(topic, name).annotation, config=ConfigDict(allow_inf_nan=False))


def _info(topic: str, name: str) -> FieldInfo:
    fields = TOPICS[topic].model.model_fields
    return fields[name] if name in fields else fields[name.removesuffix(_JSON)]


def _plain(default: Any, field: pa.Field) -> Any:
    if field.name.endswith(_JSON):
        return "{}" if default == {} else "[]"
    return list(default) if isinstance(default, tuple) else default


def _numpy(array: Any) -> np.ndarray:
    """As numpy; a check that says nothing of a value doubts it."""
    if pa.types.is_boolean(array.type):
        array = pc.fill_null(array, True)
    return array.to_numpy(zero_copy_only=False)
