"""A catalogue of millions and what readers did with it, as the trainer's inputs.

Made by chance alone, in the form that `pairs` leaves behind: to write ten million items as events
and tables first would take hours and change no step of the training. Items and readers have a
topic, so that there is something to learn.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from feedrank_core.contracts.items import IMAGE_VECTOR_DIM, TEXT_VECTOR_DIM
from feedrank_core.features.encoding import FIRST_WORD, FeatureSchema
from feedrank_trainer.batching import ItemInputs
from feedrank_trainer.examples import Log, examples_of, open_shard

NUM_TOPICS = 64
TAGS_EACH, GRAMS_EACH = 3, 24
"""Of an item: three tags, and the n-grams of a title of four words."""
GRAMS_A_TOPIC = 200
"""That its titles are made of."""
ACTIONS_EACH = 10
"""Of a reader on average; one in a hundred has some sixty."""
FAITHFUL = 0.8
"""Share of a reader's actions that stay within the reader's topic."""
SKEW = 5.0
"""Popularity falls as rank to the power of 1/SKEW - 1: a hundredth of the items has 40 % of all."""
READERS_A_SHARD = 6_000
DAY_S = 86_400.0


def catalogue(num_items: int, rng: np.random.Generator) -> tuple[FeatureSchema, ItemInputs]:
    """Items by popularity, the topic of item n is n modulo NUM_TOPICS; none has a vector."""
    topics = [f"topic-{n}" for n in range(NUM_TOPICS)]
    schema = FeatureSchema.fit({"item_id": range(num_items), "category": topics}, {})
    topic_N = np.arange(num_items) % NUM_TOPICS
    creators = schema.num_creator_buckets

    def drawn(high: int, *shape: int) -> np.ndarray:
        return rng.integers(FIRST_WORD, high, shape)

    text_NG = drawn(GRAMS_A_TOPIC, num_items, GRAMS_EACH)
    text_NG += topic_N[:, None] * GRAMS_A_TOPIC
    categorical = [
        drawn(FIRST_WORD + len(schema.item_types), num_items),
        FIRST_WORD + topic_N,
        np.full(num_items, FIRST_WORD - 1),
        drawn(creators, num_items),
    ]
    return schema, {
        "id_buckets": rng.integers(0, schema.num_id_buckets, (num_items, 2)),
        "id_weight": np.ones((num_items, 1), np.float32),
        "categorical": np.stack(categorical, axis=1),
        "tags": drawn(schema.num_tag_buckets, num_items, TAGS_EACH),
        "text": text_NG,
        "text_vector": np.zeros((num_items, TEXT_VECTOR_DIM), np.float32),
        "image_vector": np.zeros((num_items, IMAGE_VECTOR_DIM), np.float32),
        "vector_mask": np.zeros((num_items, 2), np.float32),
        "dense": rng.random((num_items, 1), np.float32),
    }


def write_shards(
    folder: Path, num_readers: int, num_items: int, rng: np.random.Generator
) -> tuple[tuple[Path, ...], int]:
    """Shards of whole readers, and how many examples they hold."""
    paths, count = [], 0
    for first in range(0, num_readers, READERS_A_SHARD):
        readers = np.arange(first, min(first + READERS_A_SHARD, num_readers))
        path = folder / f"{first // READERS_A_SHARD:05d}.parquet"
        examples = examples_of(actions(readers, num_items, rng))
        with open_shard(path) as write:
            write(examples)
        paths.append(path)
        count += len(examples["user"])
    return tuple(paths), count


def actions(readers: np.ndarray, num_items: int, rng: np.random.Generator) -> Log:
    """What these readers liked in a month; each like is a label."""
    spread = rng.lognormal(-0.5, 1.0, len(readers))
    each = np.clip(np.ceil(ACTIONS_EACH * spread), 1, 200).astype(np.int64)
    user = np.repeat(readers, each)
    rank = (num_items * rng.random(len(user)) ** SKEW).astype(np.int64)
    is_faithful = rng.random(len(user)) < FAITHFUL
    own = rank - rank % NUM_TOPICS + user % NUM_TOPICS
    item = np.where(is_faithful & (own < num_items), own, rank)
    at_s = 30 * DAY_S * rng.random(len(user))
    order = np.lexsort((at_s, user))
    everywhere = np.ones(len(user), bool)
    return Log(user, item, np.full(len(user), FIRST_WORD), at_s[order], everywhere)
