"""Rank the catalogue for every user: encode, search, drop, write; chunk by chunk."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from feedrank_core.contracts.bundle import Part, Stage
from feedrank_core.contracts.redis_keys import CANDIDATES
from feedrank_core.ranking.packed import pack
from feedrank_core.runtime.bundle_store import Bundle, BundleStore, sha256_of
from feedrank_core.runtime.metrics import Metrics
from feedrank_core.runtime.progress import progress
from redis import Redis

from feedrank_batch_ranker.adapters.exact_index import ExactIndex
from feedrank_batch_ranker.checkpoint import Checkpoint
from feedrank_batch_ranker.erased import RankedUsers
from feedrank_batch_ranker.errors import RankerError
from feedrank_batch_ranker.indexing import index_bundle, load_index
from feedrank_batch_ranker.readers import UserEncoder, as_readers, read_users
from feedrank_batch_ranker.selection import allowed, best, recall
from feedrank_batch_ranker.settings import Settings
from feedrank_batch_ranker.writers import writing
from feedrank_batch_ranker.written import lacking, missing


def bundle_of(run: Path) -> str:
    """The bundle that the run's training step made. Raises: RankerError."""
    path = run / "bundle.json"
    try:
        return orjson.loads(path.read_bytes())["bundle_id"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RankerError(f"{path} does not name a bundle ({error}); train in this run") from error


def rank(
    store: BundleStore,
    cache: Redis,
    users: Path,
    run: Path,
    settings: Settings,
    metrics: Metrics,
    *,
    restart: bool,
) -> dict[str, Any]:
    """Write `cand:` of every user; the summary of the run. Raises: RankerError, BundleError."""
    began = time.monotonic()
    bundle = _indexed(store, bundle_of(run), settings)
    if not users.is_file():
        raise RankerError(f"{users} is missing; run `feedrank_feature_store features` first")
    ranked = RankedUsers(users)
    ranker = Ranker(bundle, settings, metrics)
    found = ranker.audit(users)
    metrics.gauge("recall").set(found)
    _require_recall(found, bundle, settings)
    fresh = Checkpoint(
        bundle_id=bundle.bundle_id,
        users_sha256=sha256_of(users),
        chunk_users=settings.chunk_users,
        num_candidates=settings.num_candidates,
    )
    state = fresh if restart else _continued(fresh, run, cache, users, seed=settings.seed)
    resumed = state.chunks_written
    with writing(users.parent):
        state = ranker.write_all(users, cache, run, state)
        erased = ranked.forget_erased(cache, bundle.bundle_id)
    return {
        "bundle_id": bundle.bundle_id,
        "users": pq.read_metadata(users).num_rows,
        "items": bundle.manifest.num_items,
        "candidates": state.candidates,
        "index": ranker.index.kind,
        "recall": round(found, 4),
        "erased_meanwhile": erased,
        "resumed_at_chunk": resumed,
        "seconds": round(time.monotonic() - began, 2),
    }


def _indexed(store: BundleStore, bundle_id: str, settings: Settings) -> Bundle:
    bundle = store.open(bundle_id)
    if bundle.manifest.stage is Stage.INDEXED:
        return bundle
    with progress("items", bundle.manifest.num_items) as tick:
        return index_bundle(store, bundle, settings, tick)


def _require_recall(found: float, bundle: Bundle, settings: Settings) -> None:
    if found < settings.recall_floor:
        raise RankerError(
            f"bundle {bundle.bundle_id}: audited recall@{settings.num_candidates} is {found:.3f},"
            f" below the floor of {settings.recall_floor}; nothing was written (see"
            " FEEDRANK_BATCH_RANKER_ENGINE and FEEDRANK_BATCH_RANKER_RECALL_FLOOR)"
        )


def _continued(fresh: Checkpoint, run: Path, cache: Redis, users: Path, *, seed: int) -> Checkpoint:
    """Where the run was left, or its beginning where the cache was flushed since."""
    state = fresh.continued(run)
    written = state.chunks_written * state.chunk_users
    if written and missing(cache, users, state.bundle_id, first=written, seed=seed)[0]:
        return fresh
    return state


@dataclass
class Ranker:
    """One indexed bundle, opened for ranking."""

    bundle: Bundle
    settings: Settings
    metrics: Metrics

    def __post_init__(self) -> None:
        self.index = load_index(self.bundle)
        self._encoder = UserEncoder(self.bundle)
        self._active_N = np.asarray(self.bundle.array(Part.ITEM_ACTIVE))
        self._creator_N = np.asarray(self.bundle.array(Part.ITEM_CREATORS))
        names: Any = self.bundle.json(Part.CREATORS)
        self._creator_of = {name: n for n, name in enumerate(names)}

    def audit(self, users: Path) -> float:
        """Recall of the index against exact search on users drawn by the seed; 1.0 of none."""
        total = pq.read_metadata(users).num_rows
        chance = np.random.default_rng(self.settings.seed)
        size = min(self.settings.audit_users, total)
        drawn = np.sort(chance.choice(total, size=size, replace=False))
        vectors, start = [], 0
        for batch in read_users(users, self.settings.chunk_users, self._encoder.schema):
            inside = drawn[(drawn >= start) & (drawn < start + len(batch))] - start
            start += len(batch)
            if len(inside):
                vectors.append(self._encoder.vectors(as_readers(batch.take(pa.array(inside)))))
        if not vectors:
            return 1.0
        query_BD = np.concatenate(vectors)
        exact = ExactIndex(np.asarray(self.bundle.array(Part.ITEM_VECTORS)))
        truth_BK, _ = exact.search(query_BD, self.settings.num_candidates)
        found_BK, _ = self.index.search(query_BD, self.settings.num_candidates)
        return recall(found_BK, truth_BK)

    def write_all(self, users: Path, cache: Redis, run: Path, state: Checkpoint) -> Checkpoint:
        """Rank and write every chunk that the checkpoint does not hold yet."""
        total = pq.read_metadata(users).num_rows
        done = min(total, state.chunks_written * self.settings.chunk_users)
        self.metrics.gauge("readers").set(total)
        self.metrics.gauge("readers_ranked").set(done)
        batches = read_users(users, self.settings.chunk_users, self._encoder.schema)
        with progress("users", total, done=done) as tick:
            for batch in islice(batches, state.chunks_written, None):
                ranked = self.rank_chunk(batch)
                self._write(cache, ranked)
                state = state.model_copy(
                    update={
                        "chunks_written": state.chunks_written + 1,
                        "candidates": state.candidates + sum(len(i) for _, i, _ in ranked),
                    }
                )
                state.save(run)
                done += len(batch)
                self.metrics.gauge("readers_ranked").set(done)
                tick(len(batch))
        return state

    def write_missing(self, users: Path, cache: Redis, is_over: Callable[[], bool]) -> int:
        """Rank and write for those who have no candidates, until it is over; how many they were."""
        num_readers = 0
        for batch in read_users(users, self.settings.chunk_users, self._encoder.schema):
            if is_over():
                break
            bare = lacking(cache, batch["user_id"].to_pylist(), self.bundle.bundle_id)
            if any(bare):
                self._write(cache, self.rank_chunk(batch.filter(pa.array(bare))))
                num_readers += sum(bare)
                self.metrics.counter("readers_refilled_total").inc(sum(bare))
        return num_readers

    def rank_chunk(self, batch: pa.RecordBatch) -> list[tuple[str, np.ndarray, np.ndarray]]:
        """User id, dense indices and scores of each user of the chunk."""
        readers = as_readers(batch)
        row, key = readers.seen
        index = self._encoder.dense_indices(key)
        seen = row[index >= 0], index[index >= 0]
        query_BD = self._encoder.vectors(readers)
        own_B = np.array([self._creator_of.get(user, -1) for user in readers.ids])
        chosen = self._choose(query_BD, seen, own_B, self._depth(seen[0]))
        return [(user, i, s) for user, (i, s) in zip(readers.ids, chosen, strict=True)]

    def _choose(
        self, query_BD: np.ndarray, seen: tuple[np.ndarray, np.ndarray], own_B: np.ndarray, k: int
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Search `k` deep; twice as deep, to a limit, for users who lost too many to the rules."""
        index_BK, score_BK = self.index.search(query_BD, k)
        allowed_BK = allowed(
            index_BK,
            seen=seen,
            active_N=self._active_N,
            creator_N=self._creator_N,
            own_creator_B=own_B,
        )
        count = self.settings.num_candidates
        chosen = best(index_BK, score_BK, allowed_BK, count)
        short = np.flatnonzero(allowed_BK.sum(axis=1) < count)
        deepest = min(2 * self.settings.max_search, len(self._active_N))
        if len(short) and k < deepest:
            row, index = seen
            inside = np.isin(row, short)
            moved = np.searchsorted(short, row[inside]), index[inside]
            deeper = self._choose(query_BD[short], moved, own_B[short], min(2 * k, deepest))
            for row_number, found in zip(short, deeper, strict=True):
                chosen[row_number] = found
        return chosen

    def _depth(self, seen_row: np.ndarray) -> int:
        """How many to fetch so that enough is left for whoever has seen most of the chunk."""
        most_seen = int(np.bincount(seen_row).max()) if len(seen_row) else 0
        live = max(float(self._active_N.mean()), 0.1)
        wanted = int((self.settings.num_candidates + most_seen) / live)
        return max(self.settings.num_candidates, min(wanted, self.settings.max_search))

    def _write(self, cache: Redis, ranked: list[tuple[str, np.ndarray, np.ndarray]]) -> None:
        with cache.pipeline(transaction=False) as pipe:
            for user, index, score in ranked:
                key = CANDIDATES.key(bundle=self.bundle.bundle_id, user=user)
                pipe.set(key, pack(index, score), ex=CANDIDATES.ttl_s)
            pipe.execute()
