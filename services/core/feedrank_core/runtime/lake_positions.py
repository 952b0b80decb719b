"""Positions in the lake: which records of a topic's partitions it holds, and rows cut by them.

What was imported never passed the bus. It counts as one more partition, NOT_FROM_BUS, with
offsets of its own, so that whoever follows the log can follow imports too (decision 7).
"""

# pyarrow.compute builds its functions at import, where pyright does not see them.
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from operator import or_
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feedrank_core.runtime.lake_schema import NOT_FROM_BUS

IMPORTS = "imports"
"""The writer under whose name the lake keeps the position of a topic's imports."""


def partition_app_id(writer: str, topic: str, partition: int) -> str:
    """The Delta application transaction under which a writer keeps a partition's position."""
    return f"{writer}/{topic}/{partition}"


def position_of(offset: int | None) -> int:
    """A transaction's offset as a number: -1 before its first."""
    return -1 if offset is None else offset


def beyond(table: pa.Table, topic: str, held: Mapping[str, int | None], writer: str) -> pa.Table:
    """The rows that no former commit of the writer holds."""
    new = None
    for partition in pc.unique(table.column("topic_partition")).to_pylist():
        here = pc.equal(table.column("topic_partition"), partition)
        start = held.get(partition_app_id(writer, topic, partition)) or 0
        kept = pc.and_(here, pc.greater_equal(table.column("topic_offset"), start))
        new = kept if new is None else pc.or_(new, kept)
    return table if new is None else table.filter(new)


def numbered(table: pa.Table, start: int) -> tuple[pa.Table, int]:
    """The rows with running offsets for those from no bus, and where these then stand."""
    partition = table.column("topic_partition").to_numpy()
    imported = partition == NOT_FROM_BUS
    end = start + int(imported.sum())
    if end == start:
        return table, start
    offsets = table.column("topic_offset").to_numpy().copy()
    offsets[imported] = np.arange(start, end)
    index = table.schema.get_field_index("topic_offset")
    return table.set_column(index, table.schema.field(index), pa.array(offsets)), end


def between(starts: Mapping[int, int], ends: Mapping[int, int]) -> Any:
    """A filter of datasets: each partition's rows from its start up to, not with, its end."""
    parts = [
        (pc.field("topic_partition") == partition)
        & (pc.field("topic_offset") >= starts.get(partition, 0))
        & (pc.field("topic_offset") < end)
        for partition, end in ends.items()
    ]
    return reduce(or_, parts) if parts else pc.scalar(False)


def cut_sql(source: str, ends: Mapping[int, int]) -> str:
    """The SELECT of a registered table's rows before these positions, and no other partition's."""
    parts = [f"(topic_partition = {p} AND topic_offset < {end})" for p, end in ends.items()]
    return f"SELECT * FROM {source} WHERE {' OR '.join(parts) or 'false'}"
