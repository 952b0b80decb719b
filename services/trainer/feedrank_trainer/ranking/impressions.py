"""What was shown and what came of it: impressions with a label for every head.

R impressions, H = len(HEADS) heads.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime
from enum import StrEnum

import duckdb
import numpy as np
import pyarrow as pa
from feedrank_core.contracts.events import Surface
from feedrank_core.contracts.slates import HEADS, Head, Source

from feedrank_trainer.labels import LABEL_WINDOW_H, seconds

SURFACES = tuple(Surface)
SOURCES = tuple(Source)
UNTOLD = -1
"""The source of an impression whose slate does not name its item."""
NOWHERE = -1
"""The position of an impression that stood in no list."""
COUNTED_HEADS = tuple(head for head in HEADS if head is not Head.DWELL)
_DONE = ", ".join(
    f"min(accepted_at) FILTER (event_type = '{head.value}') AS \"{head.value}\""
    for head in COUNTED_HEADS
)
_HEADS = ", ".join(f'"{head.value}"' for head in HEADS)
_SERVED = """
    SELECT request_id, min(served_at) AS served_at,
           arg_min(json_extract_string(items_json, '$[*].item_id'), served_at) AS items,
           arg_min(json_extract_string(items_json, '$[*].source'), served_at) AS sources
    FROM slates GROUP BY request_id"""


@dataclass(frozen=True)
class Impressions:
    """Impressions by reader and time, those of a slate side by side and in its order.

    Shapes: (R,) each but `label_RH` and `done_after_s_RH` (R, H) float32, the first NaN where
    a head is not known; `user` and `item` dense indices int64, `slate` int64 ascending in steps of
    one, `position` int64 with NOWHERE for none, `surface` int64 index into SURFACES, `source` int64
    index into SOURCES with UNTOLD for none.
    Units: `served_s` Unix seconds; `shown_after_s` and `done_after_s_RH` seconds from then until
    the bus had the impression and the first action of each head, 0 where a host's clock says
    before, NaN where none came.
    The label of dwell is log1p of its seconds, 0 where nothing was viewed.
    """

    user: np.ndarray
    item: np.ndarray
    slate: np.ndarray
    position: np.ndarray
    surface: np.ndarray
    source: np.ndarray
    served_s: np.ndarray
    shown_after_s: np.ndarray
    done_after_s_RH: np.ndarray
    label_RH: np.ndarray

    def __len__(self) -> int:
        return len(self.user)

    def rows(self, chosen: np.ndarray) -> Impressions:
        """The chosen impressions, in order; slates are numbered anew."""
        parts = {field.name: getattr(self, field.name)[chosen] for field in fields(self)}
        parts["slate"] = np.unique(parts["slate"], return_inverse=True)[1].astype(np.int64)
        return Impressions(**parts)

    def label(self, head: Head) -> np.ndarray:
        """The labels of one head. Shapes: (R,) float32."""
        return self.label_RH[:, HEADS.index(head)]

    def done_after_s(self, head: Head) -> np.ndarray:
        """Seconds until the first action of a head, NaN where none came. Shapes: (R,) float32."""
        return self.done_after_s_RH[:, HEADS.index(head)]


def number(connection: duckdb.DuckDBPyConnection, user_ids: pa.Array, item_ids: pa.Array) -> None:
    """Have tables `readers` and `catalogue`, each id with its place as `number`."""
    for name, ids in (("readers", user_ids), ("catalogue", item_ids)):
        numbers = pa.array(np.arange(len(ids)))
        connection.register(name, pa.table({"id": ids, "number": numbers}))


def labelled_impressions(
    connection: duckdb.DuckDBPyConnection,
    user_ids: pa.Array,
    item_ids: pa.Array,
    *,
    as_of: datetime,
) -> Impressions:
    """The impressions whose label window had passed by `as_of`.

    `connection` holds views `impressions`, `interactions` and `slates` in the columns of the
    contracts; the ids give the dense indices, and what names others is left out, as is an
    impression of no slate: nobody knows what it was chosen from. An action counts if it was
    accepted within the window after its slate was served, and so does the impression.
    """
    number(connection, user_ids, item_ids)
    window = f"served_at + INTERVAL {LABEL_WINDOW_H} HOUR"
    query = f"""
        WITH served AS ({_SERVED}), shown AS (
            SELECT request_id, item_id, any_value(user_id) AS user_id,
                   min(position) AS position, any_value(surface) AS surface,
                   any_value(sources[list_position(items, item_id)]) AS source,
                   min(accepted_at) AS shown_at, any_value(served_at) AS served_at
            FROM impressions JOIN served USING (request_id)
            WHERE {window} <= $as_of AND accepted_at <= {window} GROUP BY request_id, item_id
        ), done AS (
            SELECT request_id, item_id, max(dwell_s) AS dwell_s, {_DONE},
                   min(accepted_at) FILTER (dwell_s IS NOT NULL) AS dwell
            FROM interactions JOIN served USING (request_id)
            WHERE accepted_at <= {window} GROUP BY request_id, item_id
        )
        SELECT readers.number AS "user", catalogue.number AS item, request_id, position, surface,
               source, served_at, shown_at, coalesce(dwell_s, 0) AS dwell_s, {_HEADS}
        FROM shown LEFT JOIN done USING (request_id, item_id)
        JOIN readers ON readers.id = user_id JOIN catalogue ON catalogue.id = item_id
        ORDER BY "user", served_at, request_id, position, item"""
    return _from_table(connection.execute(query, {"as_of": as_of}).to_arrow_table())


def _from_table(table: pa.Table) -> Impressions:
    request = table["request_id"].combine_chunks().dictionary_encode()
    code = request.indices.to_numpy(zero_copy_only=False)
    user = table["user"].to_numpy().astype(np.int64)
    is_new = (np.diff(code, prepend=code[:1]) != 0) | (np.diff(user, prepend=user[:1]) != 0)
    served_s = seconds(table["served_at"])
    after_s = [_after(served_s, table[head.value]) for head in HEADS]
    labels = [np.isfinite(one) for one in after_s[: len(COUNTED_HEADS)]]
    labels.append(np.log1p(table["dwell_s"].to_numpy()))
    return Impressions(
        user=user,
        item=table["item"].to_numpy().astype(np.int64),
        slate=np.cumsum(is_new).astype(np.int64),
        position=table["position"].fill_null(NOWHERE).to_numpy().astype(np.int64),
        surface=_numbered(table["surface"], SURFACES),
        source=_numbered(table["source"], SOURCES),
        served_s=served_s,
        shown_after_s=_after(served_s, table["shown_at"]),
        done_after_s_RH=np.stack(after_s, axis=1),
        label_RH=np.stack(labels, axis=1, dtype=np.float32),
    )


def _numbered(names: pa.ChunkedArray, known: tuple[StrEnum, ...]) -> np.ndarray:
    """Each name's place among those that are known, -1 for none. Shapes: (R,) int64."""
    codes = names.combine_chunks().dictionary_encode()
    places = [known.index(n) if n in known else UNTOLD for n in codes.dictionary.to_pylist()]
    indices = codes.indices.fill_null(len(places)).to_numpy(zero_copy_only=False)
    return np.array([*places, UNTOLD], np.int64)[indices]


def _after(served_s: np.ndarray, at: pa.ChunkedArray) -> np.ndarray:
    return np.maximum(seconds(at) - served_s, 0.0).astype(np.float32)
