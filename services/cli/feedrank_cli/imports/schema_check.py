"""The columns of a file held against a contract before its first row is read."""

from __future__ import annotations

import difflib

import pyarrow as pa
from feedrank_core.contracts.topics import TOPICS
from feedrank_core.runtime.lake_schema import contract_schema, table_schema

from feedrank_cli.errors import CommandError
from feedrank_cli.imports.mapping import MAPPED_TOPICS
from feedrank_cli.imports.pieces import Source

_MAP_IT = "Give a mapping with --mapping; --example-mapping shows one."


def check_schema(source: Source, schema: pa.Schema, *, ignore_unknown: bool) -> None:
    """Hold a file without a mapping against its topic. Raises: CommandError naming the column."""
    topic = source.topic
    if topic is None:
        raise CommandError(
            f"{source.path}: neither its name nor its folder's says which topic its rows are.",
            f"Give --topic ({', '.join(MAPPED_TOPICS)}, slates), or a mapping with --mapping.",
            code=2,
        )
    own = {f.name for f in (*contract_schema(topic), *table_schema(topic))}
    known = own | set(TOPICS[topic].model.model_fields)
    unknown = [name for name in schema.names if name not in known]
    if unknown and not ignore_unknown:
        near = difflib.get_close_matches(unknown[0], known, n=1)
        meant = f" Did you mean {near[0]!r}?" if near else ""
        raise CommandError(
            f"{source.path}: {topic} have no column {', '.join(unknown)}.{meant}",
            f"Leave them out with --ignore-unknown, or name them. {_MAP_IT}",
            code=2,
        )
    for field in contract_schema(topic):
        if pa.types.is_timestamp(field.type) and field.name in schema.names:
            _check_instant(source, field.name, schema.field(field.name).type)


def _check_instant(source: Source, name: str, kind: pa.DataType) -> None:
    if pa.types.is_timestamp(kind) and kind.tz is None:
        raise CommandError(
            f"{source.path}: the times in {name} have no time zone.",
            f"A mapping gives them one: `{name}: {{from: {name}, zone: UTC}}`. {_MAP_IT}",
            code=2,
        )
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_date(kind):
        raise CommandError(
            f"{source.path}: {name} holds {kind}, not instants.",
            f"A mapping says what they are: `{name}: {{from: {name}, time: unix_s}}`. {_MAP_IT}",
            code=2,
        )
