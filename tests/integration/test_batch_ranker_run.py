"""The two commands on a small bundle, against a real cache server."""

import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnx
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feedrank_batch_ranker.erased import RankedUsers
from feedrank_core.contracts.bundle import Manifest, Part, Stage
from feedrank_core.contracts.ids import item_keys
from feedrank_core.contracts.redis_keys import CANDIDATES
from feedrank_core.features.encoding import FeatureSchema
from feedrank_core.ranking.packed import unpack
from feedrank_core.runtime.bundle_store import BundleStore
from feedrank_core.runtime.home import Home
from onnx import TensorProto, helper
from processes import free_port

NUM_ITEMS, NUM_USERS, COUNT = 300, 700, 100
AS_OF = datetime(2026, 11, 20, tzinfo=UTC)
OLDER, OLD, NEW = "20261117T000000-00000001", "20261118T000000-00000002", "20261119T000000-00000003"


@pytest.fixture
def cache(cache_server):
    with cache_server.client() as client:
        yield client


def save(path: Path, nodes, inputs, constants=()):
    output = helper.make_tensor_value_info("vector", TensorProto.FLOAT, ["n", 64])
    graph = helper.make_graph(nodes, "g", inputs, [output], list(constants))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(path))


def write_encoders(folder: Path):
    """Items are their text vector; users the sum of their history plus a country offset."""
    text = helper.make_tensor_value_info("text_vector", TensorProto.FLOAT, ["n", 64])
    save(
        folder / Part.ITEM_ENCODER,
        [helper.make_node("Identity", ["text_vector"], ["vector"])],
        [text],
    )
    history = helper.make_tensor_value_info("history_vectors", TensorProto.FLOAT, ["n", 50, 64])
    dense = helper.make_tensor_value_info("dense", TensorProto.FLOAT, ["n", 1])
    axes = helper.make_tensor("axes", TensorProto.INT64, [1], [1])
    nodes = [
        helper.make_node("ReduceSum", ["history_vectors", "axes"], ["sum"], keepdims=0),
        helper.make_node("Add", ["sum", "dense"], ["vector"]),
    ]
    save(folder / Part.USER_ENCODER, nodes, [history, dense], [axes])


def make_bundle(store: BundleStore, bundle_id: str) -> None:
    folder = store.create(bundle_id)
    (folder / "items").mkdir()
    write_encoders(folder)
    ids = [f"item-{n}" for n in range(NUM_ITEMS)]
    keys = item_keys(ids)
    order = np.argsort(keys)
    np.save(folder / Part.ITEM_KEYS, keys[order])
    np.save(folder / Part.ITEM_IDS, np.array(ids, dtype="S")[order])
    creators = ["user-3", "other"]
    np.save(folder / Part.ITEM_CREATORS, (np.arange(NUM_ITEMS) % 10 != 0).astype(np.int32))
    (folder / Part.CREATORS).write_bytes(orjson.dumps(creators))
    np.save(folder / Part.ITEM_ACTIVE, np.arange(NUM_ITEMS) % 7 != 0)
    vectors = np.random.default_rng(1).normal(size=(NUM_ITEMS, 64)).astype(np.float32)
    np.savez(folder / Part.ITEM_INPUTS, text_vector=vectors)
    schema = FeatureSchema(user_dense=("likes_7d",))
    (folder / Part.FEATURE_SCHEMA).write_text(schema.model_dump_json())
    store.seal(
        Manifest(
            bundle_id=bundle_id, stage=Stage.TRAINED, created_at=AS_OF, as_of=AS_OF,
            num_items=NUM_ITEMS, seed=0, files={},
        )
    )  # fmt: skip


def write_users(path: Path, keys: np.ndarray) -> None:
    chance = np.random.default_rng(2)
    history = [[*chance.choice(keys, size=n % 6).tolist(), 12345] for n in range(NUM_USERS)]
    seen = [chance.choice(keys, size=n % 40, replace=False).tolist() for n in range(NUM_USERS)]
    table = {
        "user_id": [f"user-{n}" for n in range(NUM_USERS)],
        "country": ["SE"] * NUM_USERS,
        "likes_7d": chance.random(NUM_USERS),
        "hist_item_key": pa.array(history, pa.list_(pa.int64())),
        "hist_action": [["click"] * len(h) for h in history],
        "hist_at": pa.array(
            [[AS_OF] * len(h) for h in history], pa.list_(pa.timestamp("us", "UTC"))
        ),
        "seen": pa.array(seen, pa.list_(pa.int64())),
    }
    path.parent.mkdir(parents=True)
    pq.write_table(pa.table(table), path)


class Place:
    def __init__(self, root: Path, url: str):
        self.home, self.run, self.url = Home(root), root / "run-1", url
        self.store = BundleStore(self.home.bundles)
        self.run.mkdir()
        make_bundle(self.store, NEW)
        keys = np.load(self.home.bundles / NEW / Part.ITEM_KEYS)
        write_users(self.home.features / "users.parquet", keys)
        (self.run / "bundle.json").write_text(json.dumps({"bundle_id": NEW}))

    def start(self, *arguments: str, **settings: str) -> subprocess.Popen:
        env = os.environ | {
            "FEEDRANK_HOME": str(self.home.root),
            "FEEDRANK_CACHE_URL": self.url,
            "FEEDRANK_BATCH_RANKER_CHUNK_USERS": "64",
            "FEEDRANK_BATCH_RANKER_NUM_CANDIDATES": str(COUNT),
        }
        env |= {f"FEEDRANK_BATCH_RANKER_{k.upper()}": v for k, v in settings.items()}
        command = [
            sys.executable,
            "-m",
            "feedrank_batch_ranker",
            *arguments,
            "--run",
            str(self.run),
        ]
        return subprocess.Popen(command, env=env, stdout=-1, stderr=-1, text=True)

    def __call__(self, *arguments: str, code: int = 0, **settings: str) -> dict | str:
        process = self.start(*arguments, **settings)
        out, err = process.communicate(timeout=60)
        assert process.returncode == code, err
        return json.loads(out.splitlines()[-1]) if code == 0 else err


@pytest.fixture
def place(tmp_path, cache_url):
    return Place(tmp_path, cache_url)


def values(cache) -> dict[bytes, bytes]:
    keys = sorted(cache.scan_iter(match="cand:*", count=2000))
    return dict(zip(keys, cache.mget(keys), strict=True))


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
    undisturbed = values(cache)
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
    assert values(cache) == undisturbed


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


def test_publish_refuses_a_bundle_whose_candidates_are_gone(place, cache):
    place("rank")
    cache.flushall()
    assert "have no candidates" in place("publish", code=1)
    assert place.store.current_id() is None


def test_ranking_again_writes_everything_when_the_cache_was_flushed(place, cache):
    place("rank")
    before = values(cache)
    cache.flushall()
    place("rank")
    assert values(cache) == before


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
    assert not values(cache)


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


def test_candidates_of_whoever_was_erased_meanwhile_go(tmp_path, cache):
    users = tmp_path / "users.parquet"
    pq.write_table(pa.table({"user_id": ["a", "erased", "b"]}), users)
    ranked = RankedUsers(users)
    keys = {user: CANDIDATES.key(bundle=NEW, user=user) for user in ("a", "erased", "b")}
    for key in keys.values():
        cache.set(key, b"x")
    assert ranked.forget_erased(cache, NEW) == 0
    unfinished = tmp_path / "unfinished"
    pq.write_table(pa.table({"user_id": ["a", "b"]}), unfinished)
    unfinished.replace(users)
    assert ranked.forget_erased(cache, NEW) == 1
    assert [user for user, key in keys.items() if cache.exists(key)] == ["a", "b"]
