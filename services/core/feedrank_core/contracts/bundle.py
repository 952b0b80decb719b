"""The bundle: the unit that is trained, promoted and rolled back, whole.

Towers, vectors, index and schema never travel apart, so they can never disagree.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from feedrank_core.contracts.base import Message, Timestamp

BUNDLE_SCHEMA_VERSION = 1
EMBEDDING_DIM = 64
MANIFEST = "manifest.json"
BUNDLE_ID = r"^[0-9]{8}T[0-9]{6}-[0-9a-f]{8}$"
"""When it was trained and a token: ids sort by age."""
CURRENT = "CURRENT"
"""File in the bundle store that names the bundle that serves; replaced by an atomic rename."""


class Part(StrEnum):
    """Files of a bundle, by their path inside it.

    Columns of the item table are separate `.npy` files so that every worker maps them into
    shared memory. Row i of each describes the item of dense index i.
    """

    USER_ENCODER = "user_encoder.onnx"
    ITEM_ENCODER = "item_encoder.onnx"
    FEATURE_SCHEMA = "feature_schema.json"
    POPULAR = "popular.json"
    METRICS = "metrics.json"
    ITEM_KEYS = "items/item_key.npy"  # (N,) int64, ascending
    ITEM_IDS = "items/item_id.npy"  # (N,) fixed-width UTF-8 bytes, dtype S
    ITEM_CREATORS = "items/creator.npy"  # (N,) int32, index into creators.json
    ITEM_CATEGORIES = "items/category.npy"  # (N,) int32, index into categories.json
    ITEM_TYPES = "items/item_type.npy"  # (N,) int8, index into ItemType
    ITEM_CREATED = "items/created_at.npy"  # (N,) float64, Unix seconds
    ITEM_ACTIVE = "items/active.npy"  # (N,) bool
    ITEM_TRAINED = "items/trained.npy"  # (N,) bool: had a positive in training
    CREATORS = "items/creators.json"
    CATEGORIES = "items/categories.json"
    ITEM_INPUTS = "items/inputs.npz"  # the item encoder's inputs
    ITEM_VECTORS = "index/item_vectors.npy"  # (N, EMBEDDING_DIM) float32
    INDEX = "index/index.json"  # kind and settings; its files lie beside it


class Stage(StrEnum):
    """How far a bundle has come: only an indexed one may serve."""

    TRAINED = "trained"
    INDEXED = "indexed"


class Manifest(Message):
    """What a bundle is made of, from what, and how to tell that it is unharmed.

    `files` maps every path in the bundle, but the manifest's own, to its sha256.
    `offsets` maps `topic/partition` to the first offset the run did not read.
    """

    schema_version: int = BUNDLE_SCHEMA_VERSION
    bundle_id: Annotated[str, Field(pattern=BUNDLE_ID)]
    stage: Stage
    created_at: Timestamp
    as_of: Timestamp
    num_items: Annotated[int, Field(ge=1)]
    embedding_dim: int = EMBEDDING_DIM
    seed: int
    offsets: dict[str, int] = {}
    config: dict[str, str | int | float | bool] = {}
    metrics: dict[str, float] = {}
    files: dict[str, Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]]


class PopularLists(Message):
    """Dense item indices, best first: for everyone, and for each segment `country|platform`."""

    everyone: tuple[int, ...]
    segments: dict[str, tuple[int, ...]] = {}


def segment_of(country: str, platform: str) -> str:
    """The segment a reader belongs to where nothing else is known."""
    return f"{country}|{platform}"
