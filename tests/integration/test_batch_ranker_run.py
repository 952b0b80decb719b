"""The two commands on a small bundle, against a real cache server."""

import json
import signal
import time
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from batch_ranker_world import (
    AS_OF,
    COUNT,
    NEW,
    NUM_USERS,
    OLD,
    OLDER,
    Place,
    candidates_in,
    make_bundle,
)
from feedrank_batch_ranker.erased import RankedUsers
from feedrank_batch_ranker.publish import publish
from feedrank_batch_ranker.settings import Settings
from feedrank_core.contracts.bundle import Part, Stage
from feedrank_core.contracts.redis_keys import CANDIDATES
from feedrank_core.ranking.packed import unpack
from feedrank_core.runtime.metrics import Metrics
from processes import free_port


@pytest.fixture
def place(tmp_path, cache_url):
    return Place(tmp_path, cache_url)


def test_every_user_gets_candidates_without_seen_inactive_or_own_items(place, cache):
    summary = place("rank")
    assert summary["users"] == NUM_USERS
    assert summary["recall"] == 1.0
    bundle = place.store.open(NEW)
    assert bundle.manifest.stage is Stage.INDEXED
    keys, creator = bundle.array(Part.ITEM_KEYS), bundle.array(Part.ITEM_CREATORS)
    active = bundle.array(Part.ITEM_ACTIVE)
    for row in pq.read_table(place.home.features / "users.parquet").to_pylist():
        index, score = unpack(cache.get(f"cand:{NEW}:{row['user_id']}"))
        assert len(index) == COUNT
        assert not set(keys[index].tolist()) & set(row["seen"])
        assert active[index].all()
        assert (np.diff(score) <= 0).all()
        assert row["user_id"] != "user-3" or (creator[index] != 0).all()
    assert 0 < cache.ttl(f"cand:{NEW}:user-1") <= 3 * 86_400


def test_a_killed_run_is_completed_and_equals_an_undisturbed_one(place, cache):
    place("rank", chunk_users="8")
    undisturbed = candidates_in(cache)
    cache.flushall()
    (place.run / "rank.json").unlink()
    process = place.start("rank", chunk_users="8")
    deadline = time.monotonic() + 30
    while not (place.run / "rank.json").exists() and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    written = json.loads((place.run / "rank.json").read_text())["chunks_written"]
    assert 0 < written < NUM_USERS / 8
    assert place("rank", chunk_users="8")["resumed_at_chunk"] == written
    assert candidates_in(cache) == undisturbed


def test_publish_flips_and_retires_what_came_before_the_previous(place, cache):
    make_bundle(place.store, OLD)
    (place.store.root / "CURRENT").write_text(OLD)
    cache.set(f"cand:{OLD}:user-1", b"", ex=1000)
    cache.set(f"cand:{OLDER}:user-1", b"", ex=1000)
    place("rank")
    assert place("publish")["previous"] == OLD
    assert place.store.current_id() == NEW
    assert cache.get("bundle:current").decode() == NEW
    assert cache.ttl(f"cand:{OLDER}:user-1") <= 60 < cache.ttl(f"cand:{OLD}:user-1")
    assert place("publish")["previous"] == OLD
    assert cache.ttl(f"cand:{OLD}:user-1") > 60


def test_publish_counts_what_it_retires(place, cache):
    place("rank")
    cache.set(f"cand:{OLD}:user-1", b"", ex=1000)
    metrics, users = Metrics("batch_ranker"), place.home.features / "users.parquet"
    done = publish(place.store, cache, users, NEW, Settings(home=place.home.root), metrics)
    counted = metrics.registry.get_sample_value("feedrank_batch_ranker_values_retired_total")
    assert counted == done["values_retired"] == 1


def test_publish_leaves_what_serves_its_predecessor_and_the_newest_on_disk(place):
    for bundle_id in (OLDER, OLD):
        make_bundle(place.store, bundle_id)
    (place.store.root / "CURRENT").write_text(OLDER)
    place("rank")
    assert place("publish", bundles_kept="1")["bundles_removed"] == [OLD]
    assert place.store.ids() == [OLDER, NEW]
    assert place("publish")["bundles_removed"] == []


def test_publish_refuses_a_bundle_whose_candidates_are_gone(place, cache):
    place("rank")
    cache.flushall()
    assert "have no candidates" in place("publish", code=1)
    assert place.store.current_id() is None


def test_ranking_again_writes_everything_when_the_cache_was_flushed(place, cache):
    place("rank")
    before = candidates_in(cache)
    cache.flushall()
    place("rank")
    assert candidates_in(cache) == before


def test_a_harmed_users_table_is_said_so_in_one_line(place):
    (place.home.features / "users.parquet").write_bytes(b"PAR1 torn")
    error = place("rank", code=1)
    assert "users table cannot be read" in error
    assert len([line for line in error.splitlines() if "users table" in line]) == 1


def test_a_recall_below_the_floor_writes_nothing(place, cache, monkeypatch):
    place("rank")
    cache.flushall()
    vectors = place.home.bundles / NEW / Part.ITEM_VECTORS
    bundle = place.store.open(NEW)
    described = bundle.json(Part.INDEX)
    assert described["kind"] == "exact"
    # An index built from other vectors than the bundle's finds other items.
    from feedrank_batch_ranker.adapters.faiss_index import FaissIndex

    other = np.random.default_rng(9).normal(size=np.load(vectors).shape).astype(np.float32)
    index = FaissIndex.build(other)
    index.save(vectors.parent / "faiss")
    bundle.part(Part.INDEX).write_bytes(orjson.dumps({"kind": "faiss", "tuning": index.tuning}))
    place.store.seal(bundle.manifest)
    assert "below the floor" in place("rank", code=1)
    assert not candidates_in(cache)


def test_a_corrupted_file_is_named_in_one_line(place):
    target = place.home.bundles / NEW / Part.ITEM_ENCODER
    target.write_bytes(b"x" + target.read_bytes())
    error = place("rank", code=1)
    assert "item_encoder.onnx does not match its sha256" in error
    assert len(error.strip().splitlines()) == 1


def test_a_bundle_of_another_schema_version_is_refused(place):
    manifest = place.home.bundles / NEW / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"schema_version": 1', '"schema_version": 99'))
    assert "schema_version is 99" in place("rank", code=1)


def test_a_cache_that_is_away_is_said_so(place):
    place.url = f"redis://127.0.0.1:{free_port()}/0"
    assert "the cache does not answer" in place("rank", code=1)


def test_a_run_without_a_bundle_is_told_to_train(place):
    (place.run / "bundle.json").unlink()
    assert "does not name a bundle" in place("rank", code=1)


@pytest.mark.parametrize(
    ("days", "left"), [(0, ["a", "b"]), (1, ["a", "b"]), (-1, ["a", "erased", "b"])]
)
def test_who_a_table_that_is_not_older_lacks_was_erased_meanwhile(tmp_path, cache, days, left):
    users, unfinished = tmp_path / "users.parquet", tmp_path / "unfinished"

    def write(path: Path, ids: list[str], as_of: datetime) -> None:
        at = pa.array([as_of] * len(ids), pa.timestamp("us", "UTC"))
        pq.write_table(pa.table({"user_id": ids, "as_of": at}), path)

    write(users, ["a", "erased", "b"], AS_OF)
    ranked = RankedUsers(users)
    keys = {user: CANDIDATES.key(bundle=NEW, user=user) for user in ("a", "erased", "b")}
    for key in keys.values():
        cache.set(key, b"x")
    assert ranked.forget_erased(cache, NEW) == 0
    write(unfinished, ["a", "b"], AS_OF + timedelta(days=days))
    unfinished.replace(users)
    assert ranked.forget_erased(cache, NEW) == 3 - len(left)
    assert [user for user, key in keys.items() if cache.exists(key)] == left
