"""Publish a world's readers and items through the public intake, as an application would."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import httpx
import numpy as np
import pyarrow as pa

from feedrank_simulator.live import LiveError, post_batch
from feedrank_simulator.rendering import item_table, user_table
from feedrank_simulator.world import World

ITEMS_PER_BATCH = 250
"""An item with both vectors is about 3 kB of JSON; the intake takes 1 MiB."""
USERS_PER_BATCH = 1000
VECTOR_DIGITS = 5


async def publish(
    world: World,
    *,
    intake_url: str,
    users: np.ndarray,
    items: np.ndarray,
    progress: Callable[[int, int], None] | None = None,
    transport: httpx.AsyncBaseTransport | None = None,
) -> int:
    """Post profiles and items; returns how many the bus holds now. Raises: LiveError."""
    base = intake_url.rstrip("/")
    total, accepted = len(users) + len(items), 0
    batches = [
        (f"{base}/v1/users:batch", "users", user_table, users[i : i + USERS_PER_BATCH])
        for i in range(0, len(users), USERS_PER_BATCH)
    ] + [
        (f"{base}/v1/items:batch", "items", item_table, items[i : i + ITEMS_PER_BATCH])
        for i in range(0, len(items), ITEMS_PER_BATCH)
    ]
    async with httpx.AsyncClient(timeout=30.0, transport=transport) as client:
        for url, name, table_of, indices in batches:
            body = {name: client_rows(table_of(world, indices))}
            result = await post_batch(client, url, body)
            if result.rejected:
                first = result.rejected[0]
                raise LiveError(f"POST {url}: {name}[{first.index}] was refused: {first.reason}")
            accepted += result.accepted
            if progress:
                progress(accepted, total)
    return accepted


def client_rows(table: pa.Table) -> list[dict[str, Any]]:
    """Rows as a client sends them: no `accepted_at`, RFC 3339 times, short numbers."""
    rows = table.drop_columns(["accepted_at"]).to_pylist()
    return [{name: _plain(value) for name, value in row.items()} for row in rows]


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, list) and value and isinstance(value[0], float):
        return [round(v, VECTOR_DIGITS) for v in value]
    return value
