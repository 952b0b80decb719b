"""A bundle and a filled cache for `bench cached_feed`: random, but of the true shapes and sizes."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import orjson
import redis
from feedrank_core.contracts.bundle import Manifest, Part, PopularLists, Stage
from feedrank_core.contracts.redis_keys import CANDIDATES, CURRENT_BUNDLE, SEEN, SEGMENT
from feedrank_core.ranking.packed import pack
from feedrank_core.runtime.bundle_store import BundleStore

from feedrank_cli.bench.bare_endpoint import KEY

BUNDLE_ID = "20260101T000000-00000000"
NUM_CANDIDATES = 500
NUM_SEEN = 300
NUM_CREATORS, NUM_CATEGORIES, NUM_POPULAR = 5_000, 40, 1_000
_CHUNK = 1_000


def write_bundle(root: Path, *, num_items: int, seed: int) -> None:
    """The item columns and lists that a gateway reads; no encoders."""
    rng, store, now = np.random.default_rng(seed), BundleStore(root), datetime.now(UTC)
    path = store.create(BUNDLE_ID)
    (path / "items").mkdir()
    keys = np.sort(rng.integers(-(2**63), 2**63 - 1, num_items, dtype=np.int64))
    columns = {
        Part.ITEM_KEYS: keys,
        Part.ITEM_IDS: np.char.add(b"item-", np.arange(num_items).astype("S8")),
        Part.ITEM_CREATORS: rng.integers(0, NUM_CREATORS, num_items, dtype=np.int32),
        Part.ITEM_CATEGORIES: rng.integers(0, NUM_CATEGORIES, num_items, dtype=np.int32),
        Part.ITEM_CREATED: now.timestamp() - rng.exponential(30 * 86_400.0, num_items),
        Part.ITEM_ACTIVE: rng.random(num_items) < 0.99,
    }
    for part, column in columns.items():
        np.save(path / part.value, column)
    (path / Part.CREATORS.value).write_bytes(orjson.dumps([f"c{i}" for i in range(NUM_CREATORS)]))
    (path / Part.CATEGORIES.value).write_bytes(
        orjson.dumps([f"category {i}" for i in range(NUM_CATEGORIES)])
    )
    popular = PopularLists(everyone=tuple(rng.permutation(num_items)[:NUM_POPULAR].tolist()))
    (path / Part.POPULAR.value).write_text(popular.model_dump_json())
    store.seal(
        Manifest(
            bundle_id=BUNDLE_ID,
            stage=Stage.INDEXED,
            created_at=now,
            as_of=now,
            num_items=num_items,
            seed=seed,
            files={},
        )
    )


def fill_cache(url: str, root: Path, *, num_users: int, seed: int, answer: bytes) -> None:
    """Candidates and seen items of every user `u0` .. , and the floor's finished answers."""
    rng, client = np.random.default_rng(seed), redis.Redis.from_url(url)
    keys = BundleStore(root).open(BUNDLE_ID, verify=False).array(Part.ITEM_KEYS)
    score_N = np.linspace(9.0, 3.0, num=NUM_CANDIDATES)
    for start in range(0, num_users, _CHUNK):
        values: dict[str, bytes] = {}
        index_UN = rng.integers(0, len(keys), (_CHUNK, NUM_CANDIDATES + NUM_SEEN))
        for user, index_N in enumerate(index_UN, start):
            name, candidates_N = f"u{user}", np.unique(index_N[:NUM_CANDIDATES])
            rng.shuffle(candidates_N)
            values[CANDIDATES.key(bundle=BUNDLE_ID, user=name)] = pack(
                candidates_N, score_N[: len(candidates_N)]
            )
            values[SEEN.key(user=name)] = keys[index_N[NUM_CANDIDATES:]].tobytes()
            values[SEGMENT.key(user=name)] = b"NL|web"
            values[KEY.format(user=name)] = answer
        client.mset(values)
    client.set(CURRENT_BUNDLE.key(), BUNDLE_ID)
    client.close()
