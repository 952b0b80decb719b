"""A small bundle and a gateway around fakes, for the gateway's tests."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import orjson
from feedrank_core.contracts.bundle import Manifest, Part, PopularLists, Stage
from feedrank_core.contracts.ids import item_key
from feedrank_core.ranking.packed import pack
from feedrank_core.runtime.bundle_store import Bundle, BundleStore
from feedrank_core.runtime.bus import BusUnavailableError
from feedrank_core.runtime.metrics import Metrics
from feedrank_gateway.adapters.memory_cache import MemoryCache
from feedrank_gateway.app import assemble
from feedrank_gateway.bundle_watcher import BundleWatcher
from feedrank_gateway.cursor import CursorCodec
from feedrank_gateway.ports import SlatesRefusedError
from feedrank_gateway.slate_log import SlateLog

FIRST, SECOND = "20260101T000000-00000001", "20260102T000000-00000002"
NUM_ITEMS, NUM_POPULAR, SEGMENT_POPULAR = 300, 120, 12
CREATORS = [f"creator-{i}" for i in range(40)]
CATEGORIES = ["music", "sport", "science", "travel", "food"]
NOW = datetime(2026, 1, 2, 12, tzinfo=UTC)


def write_bundle(
    root: Path,
    bundle_id: str = FIRST,
    *,
    num_items: int = NUM_ITEMS,
    num_popular: int = NUM_POPULAR,
    stage: Stage = Stage.INDEXED,
) -> Bundle:
    """Seal a bundle with what the gateway reads and nothing else."""
    store, rng = BundleStore(root), np.random.default_rng(7)
    path = store.create(bundle_id)
    (path / "items").mkdir(exist_ok=True)
    ids = sorted((f"item-{i}" for i in range(num_items)), key=item_key)
    columns = {
        Part.ITEM_KEYS: np.array([item_key(i) for i in ids], dtype=np.int64),
        Part.ITEM_IDS: np.array([i.encode() for i in ids]),
        Part.ITEM_CREATORS: rng.integers(0, len(CREATORS), num_items, dtype=np.int32),
        Part.ITEM_CATEGORIES: rng.integers(0, len(CATEGORIES), num_items, dtype=np.int32),
        Part.ITEM_CREATED: NOW.timestamp() - rng.exponential(86_400.0, num_items),
        Part.ITEM_ACTIVE: np.arange(num_items) % 50 != 49,
    }
    for part, column in columns.items():
        np.save(path / part.value, column)
    (path / Part.CREATORS.value).write_bytes(orjson.dumps(CREATORS))
    (path / Part.CATEGORIES.value).write_bytes(orjson.dumps(CATEGORIES))
    popular = PopularLists(
        everyone=tuple(rng.permutation(num_items)[:num_popular].tolist()),
        segments={"NL|web": tuple(rng.permutation(num_items)[:SEGMENT_POPULAR].tolist())},
    )
    (path / Part.POPULAR.value).write_text(popular.model_dump_json())
    return store.seal(
        Manifest(
            bundle_id=bundle_id,
            stage=stage,
            created_at=NOW,
            as_of=NOW,
            num_items=num_items,
            seed=0,
            files={},
        )
    )


def candidates(indices: Sequence[int]) -> bytes:
    """A `cand:` value with falling scores."""
    return pack(
        np.array(indices, dtype=np.uint32),
        np.linspace(2.0, 1.0, num=len(indices), dtype=np.float32),
    )


class StillPointer:
    """A pointer that says what it was told."""

    def __init__(self, bundle_id: str | None) -> None:
        self.bundle_id = bundle_id
        self.cache_forgot = False

    def current_id(self) -> str | None:
        return self.bundle_id


class ListPublisher:
    """Keeps what was published; `down` and `refuses` make it fail for now or for good."""

    def __init__(self) -> None:
        self.slates: list[tuple[str, bytes]] = []
        self.down = self.refuses = False
        self.was_tried = asyncio.Event()

    async def publish(self, slates: Sequence[tuple[str, bytes]]) -> None:
        self.was_tried.set()
        if self.down:
            raise BusUnavailableError("down")
        if self.refuses:
            raise SlatesRefusedError("too large")
        self.slates += slates

    async def close(self) -> None:
        pass


class GatewayWorld:
    """A gateway on fakes; `start` and `stop` stand for its lifespan."""

    def __init__(self, root: Path, *, bundle: bool = True, capacity: int = 1000) -> None:
        self.root = root
        if bundle:
            write_bundle(root)
        self.cache, self.publisher = MemoryCache(), ListPublisher()
        self.pointer = StillPointer(FIRST if bundle else None)
        self.metrics = Metrics("gateway")
        self.watcher = BundleWatcher(
            BundleStore(root),
            self.pointer,
            poll_s=0.01,
            on_swap=lambda outcome: (
                self.metrics.counter("bundle_swaps_total").labels(outcome).inc()
            ),
        )
        self.slates = SlateLog(
            self.publisher,
            capacity=capacity,
            on_published=self.metrics.counter("slates_published_total").inc,
            on_dropped=self.metrics.counter("slates_dropped_total").inc,
        )
        self.cursors = CursorCodec(b"a secret for tests only")
        self.app = assemble(self.cache, self.watcher, self.slates, self.cursors, self.metrics)

    def give_candidates(self, user_id: str, indices: Sequence[int], bundle: str = FIRST) -> None:
        self.cache.values[f"cand:{bundle}:{user_id}"] = candidates(indices)

    def metric(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"feedrank_gateway_{name}", labels) or 0.0
