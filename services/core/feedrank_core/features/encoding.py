"""Turns columns of items and readers into the inputs of the two encoders; pure numpy.

Trainer, batch ranker and model server call the same three functions:

    schema = FeatureSchema.model_validate_json(bundle.part(Part.FEATURE_SCHEMA).read_bytes())
    item_inputs = encode_items(schema, columns, trained=trained_N)   # run item_encoder.onnx
    user_inputs = encode_users(schema, columns, history, now_s=...)  # run user_encoder.onnx

`columns` maps a column's name to a sequence of N values (a list, or a numpy array): what
`pyarrow.Table.to_pydict()` gives. A column that is absent, and a None in one, mean unknown. A
column of vectors may also be a matrix, where a row of NaN means unknown.

Item inputs, all with N rows: `id_buckets` (N, 2) int64, `id_weight` (N, 1) float32, `categorical`
(N, 4) int64 (type, category, language, creator), `tags` (N, 8) int64, `text` (N, 64) int64,
`text_vector` (N, 64) float32, `image_vector` (N, 64) float32, `vector_mask` (N, 2) float32,
`dense` (N, 1) float32.

User inputs, all with B rows: `history_vectors` (B, 50, 64) float32, `history_actions` (B, 50)
int64, `history_ages_s` (B, 50) float32, `history_mask` (B, 50) float32, `profile` (B, 3) int64
(country, age band, platform), `interests` (B, 8) int64, `dense` (B, F) float32.

Id 0 is padding, 1 is out of vocabulary, in every vocabulary. Both encoders answer `vector`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import xxhash

from feedrank_core.contracts.base import Message
from feedrank_core.contracts.bundle import EMBEDDING_DIM
from feedrank_core.contracts.events import InteractionType
from feedrank_core.contracts.items import IMAGE_VECTOR_DIM, TEXT_VECTOR_DIM, ItemType
from feedrank_core.contracts.users import UNKNOWN, AgeBand, Platform
from feedrank_core.features.text import text_ids

Columns = Mapping[str, Sequence[Any] | np.ndarray]

HISTORY_LENGTH = 50
MAX_TAGS = 8
MAX_INTERESTS = 8
MAX_TEXT = 64
PADDING = 0
OUT_OF_VOCABULARY = 1
FIRST_WORD = 2

ITEM_INPUTS = (
    "id_buckets", "id_weight", "categorical", "tags", "text", "text_vector", "image_vector",
    "vector_mask", "dense",
)  # fmt: skip
USER_INPUTS = (
    "history_vectors", "history_actions", "history_ages_s", "history_mask", "profile", "interests",
    "dense",
)  # fmt: skip

SMALL_TABLE = 1 << 18
"""Rows of ids that cost next to nothing: 64 MB."""


class FeatureSchema(Message):
    """What the encoders of one bundle were trained to read; travels inside the bundle.

    `user_dense` names what the user encoder's `dense` holds, in its order: counters' columns, or of
    the ranker the DENSE_COLUMNS of `features.ranking`.
    """

    item_types: tuple[str, ...] = tuple(t.value for t in ItemType)
    categories: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    countries: tuple[str, ...] = ()
    age_bands: tuple[str, ...] = tuple(b.value for b in AgeBand)
    platforms: tuple[str, ...] = tuple(p.value for p in Platform)
    actions: tuple[str, ...] = tuple(t.value for t in InteractionType)
    num_id_buckets: int = 4096
    num_creator_buckets: int = 1024
    num_tag_buckets: int = 4096
    num_text_buckets: int = 16384
    user_dense: tuple[str, ...] = ()

    @classmethod
    def fit(
        cls, items: Columns, users: Columns, *, user_dense: Iterable[str] = ()
    ) -> FeatureSchema:
        """The schema of a catalogue and its readers: vocabularies as seen, tables to measure.

        Each item has two rows of ids. The more rows there are, the fewer items share one of theirs:
        sixteen an item where that makes no large table, and two where it would.
        """
        num_items = len(items["item_id"])
        return cls(
            categories=vocabulary(items.get("category", ())),
            languages=vocabulary(items.get("language", ())),
            countries=vocabulary(users.get("country", ())),
            num_id_buckets=power_of_two(
                max(2 * num_items, min(16 * num_items, SMALL_TABLE)), low=1024, high=1 << 22
            ),
            num_creator_buckets=power_of_two(num_items // 2, low=256, high=1 << 18),
            user_dense=tuple(user_dense),
        )


@dataclass(frozen=True)
class History:
    """What B readers engaged with, oldest first, already gathered by the caller.

    Shapes: vectors (B, 50, 64) float32 of the bundle's item vectors, zero where masked; actions
    (B, 50) int64 from `action_ids`; at_s (B, 50) float64 Unix seconds; mask (B, 50) bool.
    """

    vectors: np.ndarray
    actions: np.ndarray
    at_s: np.ndarray
    mask: np.ndarray

    @classmethod
    def empty(cls, num_users: int) -> History:
        """The history of readers who did nothing yet."""
        shape = (num_users, HISTORY_LENGTH)
        return cls(
            np.zeros((*shape, EMBEDDING_DIM), np.float32),
            np.zeros(shape, np.int64),
            np.zeros(shape),
            np.zeros(shape, bool),
        )


def encode_items(
    schema: FeatureSchema, columns: Columns, *, trained: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """The item encoder's inputs.

    `trained` (N,) bool says which items had a positive in training: the others' id embeddings
    were never learned, so they get weight 0. None means all of them.
    """
    ids = columns["item_id"]
    num_items = len(ids)
    categorical = np.stack(
        [
            word_ids(schema.item_types, columns.get("item_type"), num_items),
            word_ids(schema.categories, columns.get("category"), num_items),
            word_ids(schema.languages, columns.get("language"), num_items),
            hashed_ids(schema.num_creator_buckets, columns.get("creator_id"), num_items),
        ],
        axis=1,
    )
    text_vector, has_text = dense_vectors(columns.get("text_vector"), num_items, TEXT_VECTOR_DIM)
    image, has_image = dense_vectors(columns.get("image_vector"), num_items, IMAGE_VECTOR_DIM)
    weight = np.ones(num_items) if trained is None else np.asarray(trained)
    return {
        "id_buckets": probes(ids, schema.num_id_buckets),
        "id_weight": weight.astype(np.float32).reshape(-1, 1),
        "categorical": categorical,
        "tags": hashed_lists(schema.num_tag_buckets, columns.get("tags"), num_items, MAX_TAGS),
        "text": texts(schema.num_text_buckets, columns.get("text"), num_items),
        "text_vector": text_vector,
        "image_vector": image,
        "vector_mask": np.stack([has_text, has_image], axis=1).astype(np.float32),
        "dense": np.log1p(numbers(columns.get("duration_s"), num_items)).reshape(-1, 1),
    }


def encode_users(
    schema: FeatureSchema, columns: Columns, history: History, *, now_s: np.ndarray | float
) -> dict[str, np.ndarray]:
    """The user encoder's inputs. `now_s`: Unix seconds, one or (B,); ages count back from it."""
    num_users = len(history.mask)
    now_B1 = np.broadcast_to(np.asarray(now_s, np.float64), (num_users,))[:, None]
    ages = np.where(history.mask, np.maximum(now_B1 - history.at_s, 0), 0)
    return {
        "history_vectors": history.vectors.astype(np.float32, copy=False),
        "history_actions": np.where(history.mask, history.actions, PADDING).astype(np.int64),
        "history_ages_s": ages.astype(np.float32),
        "history_mask": history.mask.astype(np.float32),
        **encode_profiles(schema, columns, num_users),
        "dense": encode_user_dense(schema, columns, num_users),
    }


def encode_profiles(
    schema: FeatureSchema, columns: Columns, num_users: int
) -> dict[str, np.ndarray]:
    """The inputs that a profile alone decides: `profile` (B, 3) and `interests` (B, 8)."""
    profile = np.stack(
        [
            word_ids(schema.countries, columns.get("country"), num_users),
            word_ids(schema.age_bands, columns.get("age_band"), num_users),
            word_ids(schema.platforms, columns.get("platform"), num_users),
        ],
        axis=1,
    )
    interests = hashed_lists(
        schema.num_tag_buckets, columns.get("interests"), num_users, MAX_INTERESTS
    )
    return {"profile": profile, "interests": interests}


def encode_user_dense(schema: FeatureSchema, columns: Columns, num_users: int) -> np.ndarray:
    """Counters as log1p. Shapes: (B, F) float32, F at least 1 (a constant 0 without counters)."""
    if not schema.user_dense:
        return np.zeros((num_users, 1), np.float32)
    return np.stack(
        [np.log1p(numbers(columns.get(name), num_users)) for name in schema.user_dense], axis=1
    )


def action_ids(schema: FeatureSchema, actions: Sequence[str] | np.ndarray) -> np.ndarray:
    """Ids of actions for `History.actions`. Shapes: (N,) int64."""
    return word_ids(schema.actions, actions, len(actions))


def vocabulary(values: Iterable[Any]) -> tuple[str, ...]:
    """The distinct known values, sorted."""
    return tuple(sorted({str(v) for v in values if v is not None}))


def power_of_two(wanted: int, *, low: int, high: int) -> int:
    """The smallest power of two that holds `wanted`, within bounds."""
    return int(min(high, max(low, 1 << max(0, wanted - 1).bit_length())))


def word_ids(words: Sequence[str], values: Columns | Any, num_rows: int) -> np.ndarray:
    """Position in the vocabulary + 2; 1 where out of it. Shapes: (N,) int64."""
    if values is None:
        return np.full(num_rows, OUT_OF_VOCABULARY, np.int64)
    index = {word: n for n, word in enumerate(words, FIRST_WORD)}
    return np.fromiter(
        (index.get(v if v is not None else UNKNOWN, OUT_OF_VOCABULARY) for v in values),
        np.int64,
        num_rows,
    )


@lru_cache(maxsize=1 << 18)
def bucket(value: str, num_buckets: int) -> int:
    """A stable bucket of 2 to num_buckets - 1."""
    return FIRST_WORD + xxhash.xxh3_64_intdigest(value.encode()) % (num_buckets - FIRST_WORD)


def hashed_ids(num_buckets: int, values: Any, num_rows: int) -> np.ndarray:
    """Hashed ids; 1 where unknown. Shapes: (N,) int64."""
    if values is None:
        return np.full(num_rows, OUT_OF_VOCABULARY, np.int64)
    return np.fromiter(
        (OUT_OF_VOCABULARY if v is None else bucket(v, num_buckets) for v in values),
        np.int64,
        num_rows,
    )


def hashed_lists(num_buckets: int, values: Any, num_rows: int, width: int) -> np.ndarray:
    """Hashed ids of lists, cut or padded to `width`. Shapes: (N, width) int64."""
    ids = np.zeros((num_rows, width), np.int64)
    for row, words in enumerate(values if values is not None else ()):
        if words is not None:
            for place, word in enumerate(words[:width]):
                ids[row, place] = bucket(word, num_buckets)
    return ids


def probes(item_ids: Sequence[str] | np.ndarray, num_buckets: int) -> np.ndarray:
    """Two independent buckets an id: two items rarely share both. Shapes: (N, 2) int64."""
    digests = np.array([xxhash.xxh3_128_intdigest(str(i).encode()) for i in item_ids], dtype=object)
    low = (digests & ((1 << 64) - 1)).astype(np.uint64) % np.uint64(num_buckets)
    high = (digests >> 64).astype(np.uint64) % np.uint64(num_buckets)
    return np.stack([low, high], axis=1).astype(np.int64)


def texts(num_buckets: int, values: Any, num_rows: int) -> np.ndarray:
    """Hashed character n-grams of each text. Shapes: (N, 64) int64."""
    ids = np.zeros((num_rows, MAX_TEXT), np.int64)
    for row, text in enumerate(values if values is not None else ()):
        if text:
            found = text_ids(text, num_buckets, MAX_TEXT)
            ids[row, : len(found)] = found
    return ids


def dense_vectors(values: Any, num_rows: int, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Vectors and which rows have one. Shapes: (N, dim) float32, (N,) bool."""
    vectors = np.zeros((num_rows, dim), np.float32)
    present = np.zeros(num_rows, bool)
    if isinstance(values, np.ndarray) and values.ndim == 2:
        present[:] = ~np.isnan(values).any(axis=1)
        vectors[present] = values[present]
    elif values is not None:
        present[:] = [v is not None for v in values]
        if present.any():
            vectors[present] = np.array([v for v in values if v is not None], np.float32)
    return vectors, present


def numbers(values: Any, num_rows: int) -> np.ndarray:
    """Numbers not below 0, with 0 where unknown. Shapes: (N,) float32."""
    if values is None:
        return np.zeros(num_rows, np.float32)
    found = np.array([np.nan if v is None else v for v in values], np.float64)
    return np.maximum(np.nan_to_num(found), 0).astype(np.float32)
