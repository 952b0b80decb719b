"""The sorted log in pieces that fit in memory, also where what one reader did does not."""

# pyarrow.compute builds its functions at import, where pyright does not see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from feedrank_core.features.encoding import HISTORY_LENGTH


@dataclass(frozen=True)
class Piece:
    """Rows for a shard. The first `num_before` were in a former piece and are history alone."""

    shard: int
    rows: pa.Table
    num_before: int = 0


def pieces(batches: Iterable[pa.Table]) -> Iterator[Piece]:
    """All rows in order, sorted by reader and time as they come; shards never split a reader.

    What is left of a reader at the end of a batch waits for the next one. A reader who fills a
    whole batch waits no longer: the shard then gets several pieces.
    """
    shard, num_before = 0, 0
    waiting: pa.Table | None = None
    for batch in batches:
        rows = batch if waiting is None else pa.concat_tables([waiting, batch])
        if not rows.num_rows:
            continue
        starts = _starts(rows)
        if len(starts) == 1:
            if rows.num_rows > num_before:
                yield Piece(shard, rows, num_before)
            past = _past(rows)
            waiting, num_before = past, past.num_rows
            continue
        first, last = (starts[1], starts[-1]) if num_before else (0, starts[-1])
        if first > num_before:
            yield Piece(shard, rows.slice(0, first), num_before)
        shard += first > 0
        if last > first:
            yield Piece(shard, rows.slice(first, last - first))
            shard += 1
        waiting, num_before = rows.slice(last), 0
    if waiting is not None and waiting.num_rows > num_before:
        yield Piece(shard, waiting, num_before)


def _starts(rows: pa.Table) -> list[int]:
    """Where each reader's rows begin."""
    users = rows["user_id"].to_numpy(zero_copy_only=False)
    return [0, *(np.flatnonzero(users[1:] != users[:-1]) + 1).tolist()]


def _past(rows: pa.Table) -> pa.Table:
    """Of one reader's rows those that a later one may have as history.

    It has the last from strictly before its own instant, which may be that of the last row here:
    so as many are kept from before that instant as of it.
    """
    at = rows["at"]
    first = rows.num_rows - pc.sum(pc.equal(at, at[-1])).as_py()
    before = rows.slice(max(0, first - HISTORY_LENGTH), min(first, HISTORY_LENGTH))
    latest = rows.slice(max(first, rows.num_rows - HISTORY_LENGTH))
    return pa.concat_tables([before, latest]).combine_chunks()
