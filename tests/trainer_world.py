"""A few readers and items as the feature store leaves them for the trainer."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from feedrank_core.contracts.features import COUNTER_COLUMNS
from feedrank_core.contracts.ids import item_keys

AS_OF = datetime(2026, 3, 1, tzinfo=UTC)
NUM_ITEMS, NUM_USERS, EVENTS_EACH = 40, 60, 12


def write_features(folder: Path) -> None:
    rng = np.random.default_rng(1)
    ids = [f"item-{n}" for n in range(NUM_ITEMS)]
    keys = item_keys(ids)
    born = AS_OF - timedelta(days=60)
    items = {
        "item_id": ids,
        "item_key": keys,
        "item_type": [("post", "video", "article")[n % 3] for n in range(NUM_ITEMS)],
        "creator_id": [f"creator-{n % 7}" for n in range(NUM_ITEMS)],
        "category": [f"category-{n % 4}" for n in range(NUM_ITEMS)],
        "tags": [["a", "b"]] * NUM_ITEMS,
        "language": ["en"] * NUM_ITEMS,
        "text": [f"word number {n}" for n in range(NUM_ITEMS)],
        "created_at": [born + timedelta(hours=n) for n in range(NUM_ITEMS)],
        "duration_s": [None] * NUM_ITEMS,
        "text_vector": [None] * NUM_ITEMS,
        "image_vector": [None] * NUM_ITEMS,
        "active": [n != 3 for n in range(NUM_ITEMS)],
    }
    users = [f"user-{n:03d}" for n in range(NUM_USERS)]
    rows = []
    for n, user in enumerate(users):
        for event in range(EVENTS_EACH):
            item = int(rng.integers(0, NUM_ITEMS // 4)) * 4 + n % 4
            at = AS_OF - timedelta(days=30) + timedelta(hours=40 * event, minutes=n)
            rows.append((user, int(keys[item]), ids[item], "like", at, f"r{n}-{event}"))
    names = ("user_id", "item_key", "item_id", "action", "at", "request_id")
    engagements = {name: [row[n] for row in rows] for n, name in enumerate(names)}
    profiles = {
        "user_id": users,
        "country": ["NL", "DE"] * (NUM_USERS // 2),
        "age_band": ["18-24"] * NUM_USERS,
        "platform": ["web"] * NUM_USERS,
        "interests": [["category-1"]] * NUM_USERS,
    }
    tables = {
        "catalogue": items,
        "engagements": engagements,
        "users": profiles,
        "user_profiles": profiles | {"profile_at": [born] * NUM_USERS},
        "user_counters": {"user_id": users, "event_timestamp": [born] * NUM_USERS}
        | {name: [1.0] * NUM_USERS for name in COUNTER_COLUMNS},
    }
    folder.mkdir()
    for name, columns in tables.items():
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")
