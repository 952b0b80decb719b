"""Tells whether a schema still reads what was written under the one before it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]


def breaks(old: Schema, new: Schema) -> list[str]:
    """Every way in which a record valid under `old` may be refused or lose a field under `new`.

    A field removed, a field newly required, an enum narrowed, a type narrowed, a bound
    tightened. Added optional fields, enum values and types are no break.
    """
    return list(_compare(old, new, old, new, "$", frozenset()))


def _compare(
    old: Schema, new: Schema, old_root: Schema, new_root: Schema, path: str, seen: frozenset[str]
) -> Iterator[str]:
    reference = old.get("$ref")
    if reference is not None:
        if reference in seen:
            return
        seen = seen | {reference}
    was, new = _resolve(old, old_root), _resolve(new, new_root)
    if "anyOf" in was:
        for way in was["anyOf"]:
            yield from _compare(way, new, old_root, new_root, path, seen)
        return
    ways = _alike(was, [_resolve(way, new_root) for way in new.get("anyOf", [new])])
    if not ways:
        yield f"{path}: type {_type(was)} is no longer taken"
        return
    found = [list(_way(was, now, old_root, new_root, path, seen)) for now in ways]
    yield from min(found, key=len)


def _alike(was: Schema, ways: list[Schema]) -> list[Schema]:
    """The ways that may take over from this one: of its type, and of its name where one is."""
    taken = {_type(was), "any"} | ({"number"} if _type(was) == "integer" else set())
    fitting = [way for way in ways if _type(way) in taken]
    named = [way for way in fitting if way.get("title") == was.get("title")]
    return named if _type(was) == "object" and named else fitting


def _type(schema: Schema) -> str:
    return schema.get("type", "any")


def _way(
    was: Schema, now: Schema, old_root: Schema, new_root: Schema, path: str, seen: frozenset[str]
) -> Iterator[str]:
    yield from _values(was, now, path)
    yield from _bounds(was, now, path)
    yield from _fields(was, now, old_root, new_root, path, seen)
    for part in ("items", "additionalProperties"):
        if isinstance(was.get(part), Mapping) and isinstance(now.get(part), Mapping):
            yield from _compare(was[part], now[part], old_root, new_root, f"{path}[]", seen)


def _resolve(schema: Schema, root: Schema) -> Schema:
    while "$ref" in schema:
        schema = root["$defs"][schema["$ref"].rsplit("/", 1)[-1]]
    return schema


def _values(old: Schema, new: Schema, path: str) -> Iterator[str]:
    was = old.get("enum", [old["const"]] if "const" in old else None)
    now = new.get("enum", [new["const"]] if "const" in new else None)
    if now is None:
        return
    if was is None:
        yield f"{path}: only {now} are taken now"
    else:
        for value in was:
            if value not in now:
                yield f"{path}: {value!r} is no longer taken"


def _bounds(old: Schema, new: Schema, path: str) -> Iterator[str]:
    for name, value in new.items():
        was = old.get(name)
        lower = name in ("minimum", "exclusiveMinimum", "minLength", "minItems")
        upper = name in ("maximum", "exclusiveMaximum", "maxLength", "maxItems")
        if (lower and (was is None or value > was)) or (upper and (was is None or value < was)):
            yield f"{path}: {name} went from {was} to {value}"
        if name in ("pattern", "format") and value != was:
            yield f"{path}: {name} went from {was} to {value}"


def _fields(
    old: Schema, new: Schema, old_root: Schema, new_root: Schema, path: str, seen: frozenset[str]
) -> Iterator[str]:
    was, now = old.get("properties", {}), new.get("properties", {})
    for name in was.keys() - now.keys():
        yield f"{path}.{name}: the field is gone"
    for name in sorted(set(new.get("required", ())) - set(old.get("required", ()))):
        yield f"{path}.{name}: the field is required now"
    for name in was.keys() & now.keys():
        yield from _compare(was[name], now[name], old_root, new_root, f"{path}.{name}", seen)
