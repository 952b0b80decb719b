"""Readers and items as the rest of the world knows them: ids, profiles, texts, vectors.

Nothing here tells a latent vector itself; texts and vectors are noisy hints at it. An item looks
the same whichever rows are asked for, because its chance belongs to its block of rows.
"""

# pyarrow.compute builds its functions at import, where pyright does not see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from feedrank_core.contracts.items import IMAGE_VECTOR_DIM, TEXT_VECTOR_DIM
from feedrank_core.runtime.lake_schema import contract_schema

from feedrank_simulator.vocabulary import (
    COMMON_WORDS,
    SUBTOPICS_PER_CATEGORY,
    category_names,
    invented_words,
    subtopic_names,
)
from feedrank_simulator.world import (
    AGE_BANDS,
    COUNTRIES,
    ITEM_TYPES,
    LANGUAGES,
    LATENT_DIM,
    PLATFORMS,
    World,
)

BLOCK = 8192
WORDS_PER_TOPIC = 8
TEXT_WORDS = 12
TEXT_NOISE = 0.6
IMAGE_NOISE = 1.0
NO_IMAGE_SHARE = 0.2
ACCEPTED_AFTER_S = 1.0


def user_ids(users: np.ndarray) -> pa.Array:
    """Ids of readers, such as `user-17`."""
    return _numbered("user-", users)


def item_ids(items: np.ndarray) -> pa.Array:
    """Ids of items, such as `item-204`; a higher number is a younger item."""
    return _numbered("item-", items)


def item_index(item_id: str) -> int | None:
    """The index behind an id, or None where the id is not of a simulated item."""
    number = item_id.removeprefix("item-")
    return int(number) if number != item_id and number.isdecimal() else None


def instants(unix_s: np.ndarray) -> pa.Array:
    """Unix seconds as microseconds in UTC."""
    us = np.round(np.asarray(unix_s) * 1e6).astype(np.int64)
    return pa.array(us).cast(pa.timestamp("us", tz="UTC"))


def joined(*parts: pa.Array | pa.Scalar, separator: str) -> pa.Array:
    """Text columns joined row by row."""
    return pc.binary_join_element_wise(*parts, pa.scalar(separator))


def user_tables(world: World, first: int = 0, last: int | None = None) -> Iterator[pa.Table]:
    """Profiles of readers `first` up to `last` in contract columns, a block of rows at a time."""
    last = world.num_users if last is None else last
    for start in range(first, last, BLOCK):
        yield user_table(world, np.arange(start, min(start + BLOCK, last)))


def user_table(world: World, users: np.ndarray) -> pa.Table:
    """Profiles of these readers. Declared interests are the largest of the first day's taste."""
    readers = world.readers
    names = category_names(world.topics.num_categories)
    order = np.argsort(-readers.start_weight_UK[users], axis=1)[:, :3]
    category = world.topics.category_T[np.take_along_axis(readers.topic_UK[users], order, 1)]
    shown = 1 + (readers.noise_U[users] % 3)
    interests = [
        list(dict.fromkeys(names[c] for c in row[:n]))
        for row, n in zip(category.tolist(), shown.tolist(), strict=True)
    ]
    columns = {
        "user_id": user_ids(users),
        "country": _named(COUNTRIES, readers.country_U[users]),
        "age_band": _named(AGE_BANDS, readers.age_band_U[users]),
        "platform": _named(PLATFORMS, readers.platform_U[users]),
        "interests": pa.array(interests, pa.list_(pa.string())),
        "accepted_at": instants(np.full(len(users), world.start.timestamp())),
    }
    return _in_order("users", columns)


def item_tables(world: World, first: int = 0, last: int | None = None) -> Iterator[pa.Table]:
    """Items `first` up to `last` in contract columns, a block at a time, oldest first.

    `first` begins a block and `last` ends one, or the catalogue. Shapes: BLOCK rows.
    """
    last = world.num_items if last is None else last
    for block in range(first // BLOCK, -(-last // BLOCK)):
        yield _item_block(world, block)


def item_table(world: World, items: np.ndarray) -> pa.Table:
    """These items in contract columns; only the blocks they stand in are made."""
    blocks, rows = np.divmod(np.asarray(items), BLOCK)
    parts = []
    for block in np.unique(blocks):
        parts.append(_item_block(world, int(block)).take(pa.array(rows[blocks == block])))
    return pa.concat_tables(parts) if parts else contract_schema("items").empty_table()


def _item_block(world: World, block: int) -> pa.Table:
    index = np.arange(block * BLOCK, min((block + 1) * BLOCK, world.num_items))
    items = world.items
    rng = np.random.default_rng([world.seed, 10, block])
    topic = items.topic_N[index]
    creator = items.creator_N[index]
    types = items.type_N[index]
    content = world.content(index)
    text_PD, image_PD = _projections(world.seed)
    text_vectors = _noisy(rng, content @ text_PD, TEXT_NOISE)
    image_vectors = _noisy(rng, content @ image_PD, IMAGE_NOISE)
    no_image = (rng.random(len(index)) < NO_IMAGE_SHARE) & (types == 0)
    created = items.created_N[index]
    columns = {
        "item_id": item_ids(index),
        "item_type": _named(ITEM_TYPES, types),
        "creator_id": _numbered("creator-", creator),
        "category": _named(
            category_names(world.topics.num_categories), world.topics.category_T[topic]
        ),
        "tags": _tags(world, rng, topic),
        "language": _named(LANGUAGES, items.creator_language_R[creator]),
        "text": _texts(world, rng, topic),
        "created_at": instants(created),
        "duration_s": pa.array(
            items.duration_N[index].astype(np.float64), mask=np.asarray(types == 0)
        ),
        "text_vector": _vectors(text_vectors, np.zeros(len(index), bool)),
        "image_vector": _vectors(image_vectors, no_image),
        "active": pa.repeat(pa.scalar(True), len(index)),
        "accepted_at": instants(created + ACCEPTED_AFTER_S),
    }
    return _in_order("items", columns)


def _texts(world: World, rng: np.random.Generator, topic_N: np.ndarray) -> pa.Array:
    """Each word is one of the topic's, the subtopic's or category's name, or a common one."""
    words = _words(world.seed, world.topics.num_categories)
    shape = (len(topic_N), TEXT_WORDS)
    kind = rng.choice(4, shape, p=(0.35, 0.1, 0.1, 0.45))
    own = words.own_TW[topic_N[:, None], rng.integers(0, WORDS_PER_TOPIC, shape)]
    common = words.common_W[rng.integers(0, len(COMMON_WORDS), shape)]
    subtopic = words.subtopic_T[topic_N][:, None]
    category = words.category_C[world.topics.category_T[topic_N]][:, None]
    chosen = np.choose(kind, [own, subtopic, category, common])
    lines = _lists(words.text, chosen, np.ones(shape, dtype=bool))
    return pc.ascii_capitalize(pc.binary_join(lines, " "))


def _tags(world: World, rng: np.random.Generator, topic_N: np.ndarray) -> pa.Array:
    """The subtopic, a word of it, and sometimes a neighbouring subtopic."""
    words = _words(world.seed, world.topics.num_categories)
    own = words.own_TW[topic_N, rng.integers(0, WORDS_PER_TOPIC, len(topic_N))]
    beside = topic_N // SUBTOPICS_PER_CATEGORY * SUBTOPICS_PER_CATEGORY
    beside = beside + rng.integers(0, SUBTOPICS_PER_CATEGORY, len(topic_N))
    tags_N3 = np.stack([words.subtopic_T[topic_N], own, words.subtopic_T[beside]], axis=1)
    first, second, third = tags_N3.T
    kept_N3 = np.ones(tags_N3.shape, dtype=bool)
    kept_N3[:, 1] = second != first
    kept_N3[:, 2] = (rng.random(len(topic_N)) < 0.4) & (third != first) & (third != second)
    return _lists(words.text, tags_N3, kept_N3)


@dataclass(frozen=True)
class _Words:
    """Every word once, and where in `text` those of each kind stand."""

    text: pa.Array
    own_TW: np.ndarray
    subtopic_T: np.ndarray
    category_C: np.ndarray
    common_W: np.ndarray


@lru_cache(maxsize=4)
def _words(seed: int, num_categories: int) -> _Words:
    subtopics, categories = subtopic_names(num_categories), category_names(num_categories)
    rng = np.random.default_rng([seed, 11])
    own_TW = invented_words(rng, len(subtopics), WORDS_PER_TOPIC)
    kinds = (own_TW, np.array(subtopics), np.array(categories), np.array(COMMON_WORDS))
    unique, places = np.unique(np.concatenate([k.ravel() for k in kinds]), return_inverse=True)
    own, *names = np.split(places, np.cumsum([k.size for k in kinds])[:-1])
    return _Words(pa.array(unique.tolist()), own.reshape(own_TW.shape), *names)


def _lists(values: pa.Array, index_NW: np.ndarray, kept_NW: np.ndarray) -> pa.Array:
    """A list of values a row, of those places that are kept."""
    offsets = np.concatenate([[0], np.cumsum(kept_NW.sum(axis=1))])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values.take(index_NW[kept_NW]))


@lru_cache(maxsize=4)
def _projections(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng([seed, 12])
    text = rng.standard_normal((LATENT_DIM, TEXT_VECTOR_DIM)) / np.sqrt(TEXT_VECTOR_DIM)
    image = rng.standard_normal((LATENT_DIM, IMAGE_VECTOR_DIM)) / np.sqrt(IMAGE_VECTOR_DIM)
    return text.astype(np.float32), image.astype(np.float32)


def _noisy(rng: np.random.Generator, vectors: np.ndarray, noise: float) -> np.ndarray:
    """`noise` is the length of what is added, beside vectors of length about 1."""
    added = rng.standard_normal(vectors.shape, dtype=np.float32) * noise
    vectors = vectors + added / np.sqrt(vectors.shape[1])
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _vectors(vectors: np.ndarray, missing: np.ndarray) -> pa.Array:
    kept = np.ascontiguousarray(vectors[~missing], dtype=np.float32)
    offsets = np.concatenate([[0], np.cumsum(np.where(missing, 0, vectors.shape[1]))])
    return pa.ListArray.from_arrays(
        pa.array(offsets, pa.int32()), pa.array(kept.ravel()), mask=pa.array(missing)
    )


def _numbered(prefix: str, numbers: np.ndarray) -> pa.Array:
    text = pc.cast(pa.array(np.asarray(numbers, dtype=np.int64)), pa.string())
    return joined(pa.scalar(prefix), text, separator="")


def _named(names: tuple[str, ...] | list[str], index: np.ndarray) -> pa.Array:
    values = pa.array([str(name) for name in names])
    return values.take(pa.array(np.asarray(index, dtype=np.int64)))


def _in_order(topic: str, columns: dict[str, pa.Array]) -> pa.Table:
    schema = contract_schema(topic)
    return pa.table([columns[f.name].cast(f.type) for f in schema], schema=schema)
