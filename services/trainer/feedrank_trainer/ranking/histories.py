"""What readers had engaged with when their slates were served."""

from __future__ import annotations

import duckdb
import numpy as np
import pyarrow as pa
from feedrank_core.features.encoding import FeatureSchema, action_ids

from feedrank_trainer.examples import Log
from feedrank_trainer.labels import SERVED, seconds
from feedrank_trainer.ranking.impressions import number


def engagement_log(
    connection: duckdb.DuckDBPyConnection,
    user_ids: pa.Array,
    item_ids: pa.Array,
    schema: FeatureSchema,
) -> Log:
    """Every engaged action of these readers and items, by reader and time.

    `connection` holds views `engagements`, in the columns of the feature table, and `slates`. What
    came of a slate is no older than it, whatever the clocks of two hosts say: else the slate's own
    history would tell which of its items is clicked.
    """
    number(connection, user_ids, item_ids)
    query = f"""
        WITH served AS ({SERVED})
        SELECT readers.number AS "user", catalogue.number AS item, action,
               greatest(e."at", served_at) AS told_at
        FROM engagements e LEFT JOIN served USING (request_id)
        JOIN readers ON readers.id = e.user_id JOIN catalogue ON catalogue.id = e.item_id
        ORDER BY "user", told_at, item"""
    table = connection.execute(query).to_arrow_table()
    return Log(
        table["user"].to_numpy().astype(np.int64),
        table["item"].to_numpy().astype(np.int64),
        action_ids(schema, table["action"].to_pylist()),
        seconds(table["told_at"]),
        np.ones(table.num_rows, bool),
    )
