"""A small bundle with readers, and the batch ranker's commands on it."""

import json
import os
import shutil
import subprocess
import sys
from copy import copy
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnx
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from feedrank_core.contracts.bundle import Manifest, Part, Stage
from feedrank_core.contracts.ids import item_keys
from feedrank_core.features.encoding import FeatureSchema
from feedrank_core.runtime.bundle_store import BundleStore
from feedrank_core.runtime.home import Home
from onnx import TensorProto, helper
from processes import free_port

NUM_ITEMS, NUM_USERS, COUNT = 300, 700, 100
AS_OF = datetime(2026, 11, 20, tzinfo=UTC)
OLDER, OLD, NEW = "20261117T000000-00000001", "20261118T000000-00000002", "20261119T000000-00000003"


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
        "as_of": pa.array([AS_OF] * NUM_USERS, pa.timestamp("us", "UTC")),
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

    def copied(self, root: Path) -> "Place":
        """The same in another folder, of which a test may do what it likes."""
        shutil.copytree(self.home.root, root, dirs_exist_ok=True)
        twin = copy(self)
        twin.home, twin.run = Home(root), root / self.run.name
        twin.store = BundleStore(twin.home.bundles)
        return twin

    def settings(self, **own: str) -> dict[str, str]:
        """By name without FEEDRANK_, what its processes are told."""
        whole = {"chunk_users": "64", "num_candidates": str(COUNT)} | own
        named = {f"batch_ranker_{name}": value for name, value in whole.items()}
        return {"home": str(self.home.root), "cache_url": self.url} | named

    def start(self, *arguments: str, **settings: str) -> subprocess.Popen:
        settings = self.settings(port=str(free_port()), **settings)
        env = os.environ | {f"FEEDRANK_{k.upper()}": v for k, v in settings.items()}
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


def candidates_in(cache) -> dict[bytes, bytes]:
    """Every value by its key."""
    keys = sorted(cache.scan_iter(match="cand:*", count=2000))
    return dict(zip(keys, cache.mget(keys), strict=True))
