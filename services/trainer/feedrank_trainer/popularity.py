"""The popular lists of a bundle: for everyone, and by country and platform."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
from feedrank_core.contracts.bundle import PopularLists, segment_of
from feedrank_core.contracts.users import UNKNOWN

POPULAR_LENGTH = 500
"""As long as a reader's own candidates."""
HALF_LIFE_S = 7 * 86_400.0
MIN_SEGMENT_READERS = 20
"""Below, a segment's list would be the taste of a few people."""
_EVERYONE = ""


def popular_lists(
    shards: Sequence[Path],
    segments: pa.Table,
    *,
    active_N: np.ndarray,
    created_s_N: np.ndarray,
    as_of_s: float,
) -> PopularLists:
    """Active items by decayed engagements; everybody's list ends with the newest of the rest.

    `segments` holds a row a reader of the shards with a profile: `user` and `segment`.
    """
    with duckdb.connect() as connection:
        pairs = connection.read_parquet([str(path) for path in shards])
        items = {"item": np.arange(len(active_N)), "active": active_N, "created_s": created_s_N}
        connection.register("pairs", pairs)
        connection.register("segments", segments)
        connection.register("items", pa.table(items))
        rows = connection.execute(
            _RANKED,
            {
                "as_of_s": as_of_s,
                "half_life_s": HALF_LIFE_S,
                "length": POPULAR_LENGTH,
                "min_readers": MIN_SEGMENT_READERS,
            },
        ).fetchall()
    lists = {segment: tuple(indices) for segment, indices in rows}
    return PopularLists(
        everyone=_filled(lists.pop(_EVERYONE, ()), active_N, created_s_N), segments=lists
    )


_RANKED = """
    WITH weighed AS (
        SELECT pairs.user, positive AS item, segment,
               2.0 ** (-greatest($as_of_s - at_s, 0) / $half_life_s) AS weight
        FROM pairs LEFT JOIN segments ON pairs.user = segments.user
    ), known AS (
        SELECT segment FROM weighed WHERE segment IS NOT NULL
        GROUP BY segment HAVING count(DISTINCT "user") >= $min_readers
    ), scored AS (
        SELECT '' AS segment, item, sum(weight) AS score FROM weighed GROUP BY item
        UNION ALL
        SELECT segment, item, sum(weight) AS score
        FROM weighed SEMI JOIN known USING (segment) GROUP BY segment, item
    ), ranked AS (
        SELECT segment, item, row_number() OVER (
            PARTITION BY segment ORDER BY score DESC, created_s DESC, item
        ) AS place
        FROM scored JOIN items USING (item) WHERE active
    )
    SELECT segment, list(item ORDER BY place) FROM ranked WHERE place <= $length
    GROUP BY segment ORDER BY segment"""


def _filled(best: Sequence[int], active_N: np.ndarray, created_s_N: np.ndarray) -> tuple[int, ...]:
    """The list, then the newest active items until it is long enough."""
    newest = np.argsort(-created_s_N, kind="stable")
    taken = set(best)
    rest = [i for i in newest[active_N[newest]][: POPULAR_LENGTH + len(best)].tolist()
            if i not in taken]  # fmt: skip
    return tuple([*best, *rest][:POPULAR_LENGTH])


def segments_of(countries: Sequence[str | None], platforms: Sequence[str | None]) -> pa.Table:
    """The segment of each reader, by row. Columns: user, segment."""
    names = [
        segment_of(country or UNKNOWN, platform or UNKNOWN)
        for country, platform in zip(countries, platforms, strict=True)
    ]
    return pa.table({"user": pa.array(range(len(names)), pa.int64()),
                     "segment": pa.array(names, pa.string())})  # fmt: skip
