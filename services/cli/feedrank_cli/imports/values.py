"""One value of a source turned into what a contract's field holds: times, units, texts, lists.

Every function raises ValueError with a message that names the value and what to do about it.
"""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa

UNIX_UNITS_US = {"unix_s": 1_000_000.0, "unix_ms": 1_000.0, "unix_us": 1.0, "unix_ns": 0.001}
"""Microseconds in a unit of time since 1970."""
ISO = "iso"
UNITS_S = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0}
"""Seconds in a unit of duration."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TRUE, _FALSE = frozenset({"true", "1", "yes"}), frozenset({"false", "0", "no"})


def instant(value: Any, how: str, zone: ZoneInfo | None) -> datetime:
    """A time with its zone. `how` is ISO, a key of UNIX_UNITS_US or a strptime format.

    Of an hour that a clock passes twice the first is meant.
    """
    if isinstance(value, datetime):
        moment = value
    elif isinstance(value, date):
        moment = datetime.combine(value, datetime.min.time())
    elif how in UNIX_UNITS_US:
        return _since_1970(value, how)
    elif how == ISO:
        moment = _from_iso(value)
    else:
        moment = datetime.strptime(str(value), how)  # noqa: DTZ007 - its zone follows
    if moment.tzinfo is not None:
        return moment
    if zone is None:
        raise ValueError(f"{value} has no time zone; give the field a `zone` in a mapping")
    return moment.replace(tzinfo=zone)


def seconds(value: Any, unit: str) -> float:
    """A duration in seconds."""
    return number(value) * UNITS_S[unit]


def number(value: Any) -> float:
    """A number, not a NaN."""
    try:
        found = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{value!r} is no number") from None
    if math.isnan(found):
        raise ValueError("is NaN; where there is no value it must be null")
    return found


def fitting(value: Any, kind: pa.DataType) -> Any:
    """The value as a column of this type takes it; what does not fit is left to the contract."""
    if pa.types.is_string(kind):
        return _text(value)
    if pa.types.is_integer(kind):
        return whole(value)
    if pa.types.is_floating(kind):
        return number(value)
    if pa.types.is_boolean(kind):
        return _truth(value)
    if pa.types.is_list(kind) and isinstance(value, list | tuple):
        return [fitting(member, kind.value_type) for member in value]
    return value


def whole(value: Any) -> int:
    """A whole number, also from `3.0` and `"3"`."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    found = number(value)
    if not found.is_integer():
        raise ValueError(f"{value!r} is no whole number")
    return int(found)


def _text(value: Any) -> str:
    """Ids are often numbers elsewhere, and numbers with gaps are often floats."""
    if isinstance(value, float) and not math.isnan(value) and value.is_integer():
        return str(int(value))
    if isinstance(value, str | int) and not isinstance(value, bool):
        return str(value)
    raise ValueError(f"{value!r} is no text")


def _truth(value: Any) -> bool:
    text = str(value).lower()
    if text not in _TRUE | _FALSE:
        raise ValueError(f"{value!r} is neither true nor false")
    return text in _TRUE


def _since_1970(value: Any, how: str) -> datetime:
    micros = number(value) * UNIX_UNITS_US[how]
    if isinstance(value, int):
        per_us = UNIX_UNITS_US[how]
        micros = value // round(1 / per_us) if per_us < 1 else value * int(per_us)
    try:
        return _EPOCH + timedelta(microseconds=micros)
    except OverflowError:
        raise ValueError(
            f"{value!r} as {how} lies beyond the calendar; is the unit right?"
        ) from None


def _from_iso(value: Any) -> datetime:
    try:
        return datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise ValueError(
            f"{value!r} is no ISO 8601 time; give the field a `time` in a mapping"
        ) from None
