"""From a trained bundle to an indexed one: item vectors, the engine, the manifest."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import orjson
from feedrank_core.contracts.bundle import Part, Stage
from feedrank_core.runtime.atomic import write_atomically
from feedrank_core.runtime.bundle_store import Bundle, BundleStore

from feedrank_batch_ranker.adapters.exact_index import ExactIndex
from feedrank_batch_ranker.ports import Index
from feedrank_batch_ranker.settings import Settings


def encoder(path: Path) -> onnxruntime.InferenceSession:
    """An ONNX encoder of the bundle on the CPU."""
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def run_encoder(session: onnxruntime.InferenceSession, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """The `vector` output; inputs that the graph does not name are left out."""
    names = {i.name for i in session.get_inputs()}
    fed = {name: value for name, value in inputs.items() if name in names}
    return np.asarray(session.run(["vector"], fed)[0], np.float32)


def engine(name: str) -> Any:
    """The adapter of a kind. Raises: ImportError where its library cannot be had."""
    if name == "exact":
        return ExactIndex
    if name == "scann":
        from feedrank_batch_ranker.adapters.scann_index import ScannIndex

        return ScannIndex
    from feedrank_batch_ranker.adapters.faiss_index import FaissIndex

    return FaissIndex


def choose_engine(num_items: int, settings: Settings) -> str:
    """Exact for small catalogues, else ScaNN, else faiss."""
    if settings.engine:
        return settings.engine
    if num_items < settings.exact_below:
        return "exact"
    try:
        engine("scann")
    except ImportError:
        return "faiss"
    return "scann"


def index_bundle(
    store: BundleStore, bundle: Bundle, settings: Settings, tick: Callable[[int], None]
) -> Bundle:
    """The same bundle, sealed as indexed. `tick` hears how many items were encoded."""
    target = bundle.part(Part.ITEM_VECTORS)
    shutil.rmtree(target.parent, ignore_errors=True)
    target.parent.mkdir(parents=True)
    vector_ND = encode_items(bundle, settings.chunk_items, tick)
    np.save(target, vector_ND)
    name = choose_engine(len(vector_ND), settings)
    index: Index = engine(name).build(vector_ND)
    index.save(target.parent / name)
    described = {"kind": name, "tuning": index.tuning}
    write_atomically(bundle.part(Part.INDEX), orjson.dumps(described))
    return store.seal(bundle.manifest.model_copy(update={"stage": Stage.INDEXED}))


def encode_items(bundle: Bundle, chunk: int, tick: Callable[[int], None]) -> np.ndarray:
    """Every item's vector. Shapes: (N, 64) float32."""
    session = encoder(bundle.part(Part.ITEM_ENCODER))
    num_items = bundle.manifest.num_items
    vector_ND = np.empty((num_items, bundle.manifest.embedding_dim), np.float32)
    with np.load(bundle.part(Part.ITEM_INPUTS), allow_pickle=False) as stored:
        inputs = {name: stored[name] for name in stored.files}
    for start in range(0, num_items, chunk):
        stop = min(start + chunk, num_items)
        vector_ND[start:stop] = run_encoder(
            session, {name: value[start:stop] for name, value in inputs.items()}
        )
        tick(stop - start)
    if not np.isfinite(vector_ND).all():
        raise ValueError(f"{Part.ITEM_ENCODER.value} gives vectors that are not finite")
    return vector_ND


def load_index(bundle: Bundle) -> Index:
    """The index of an indexed bundle."""
    described: Any = bundle.json(Part.INDEX)
    folder = bundle.part(Part.INDEX).parent / described["kind"]
    vectors = np.asarray(bundle.array(Part.ITEM_VECTORS))
    return engine(described["kind"]).load(folder, vectors, described["tuning"])
