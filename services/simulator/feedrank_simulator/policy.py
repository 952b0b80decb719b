"""The logging policy of simulated history: what a platform without a model would have shown.

Each place of a page is filled by popularity, blindly at random, or by a noisy idea of the
reader's taste; the places are then shuffled, so that position says nothing about the source and
the position bias can be told from the data.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from feedrank_core.contracts.slates import Source

from feedrank_simulator.instants import seconds
from feedrank_simulator.world import TOPICS_PER_USER, World

SOURCES = (Source.GLOBAL_POPULAR, Source.EXPLORATION, Source.CACHED)
SHARES = (0.35, 0.25, 0.4)
OVERDRAW = 2
"""Candidates per place, because some were shown before and some are drawn twice."""
SEEN_SLOTS = 8192
FRESH_BIAS = 2.0
"""Exponent of the draw among a topic's items: 1 is uniform, more prefers young ones."""


class Seen:
    """What each reader of a block was shown, as a hashed set of SEEN_SLOTS bits a reader.

    It never forgets; beyond SEEN_SLOTS items it sometimes takes a new item for a seen one, whoever
    the reader is, which costs a candidate and biases nothing.
    """

    def __init__(self, num_readers: int) -> None:
        self._bits = np.zeros((num_readers, SEEN_SLOTS), dtype=bool)

    def has(self, rows: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Whether an item was shown. Shapes broadcast."""
        return self._bits[rows, items % SEEN_SLOTS]

    def add(self, rows: np.ndarray, items: np.ndarray) -> None:
        """Remember what was shown."""
        self._bits[rows, items % SEEN_SLOTS] = True


@dataclass(frozen=True)
class Shelf:
    """One day's stock to draw from: what existed when the day began."""

    world: World
    num_live: int
    popular_cdf: np.ndarray
    by_topic: np.ndarray
    topic_start_T: np.ndarray
    topic_live_T: np.ndarray

    @classmethod
    def of_day(cls, world: World, day_start_s: float) -> Shelf:
        """Popularity is the crowd's: quality, the creator's fame, the topic's, and youth."""
        num_live = max(1, int(world.num_live(day_start_s)))
        items = world.items
        live = slice(0, num_live)
        age_days = np.maximum(seconds(day_start_s) - items.created_N[live], 0) / 86_400
        weight = (
            items.quality_N[live]
            * np.sqrt(items.creator_fame_R[items.creator_N[live]])
            * np.sqrt(world.topics.popularity_T[items.topic_N[live]])
            * np.exp2(-age_days / 7)
        ).astype(np.float64) ** 1.5
        topic = items.topic_N[live]
        by_topic = np.argsort(topic, kind="stable").astype(np.int32)
        counts = np.bincount(topic, minlength=len(world.topics.category_T))
        starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
        return cls(world, num_live, np.cumsum(weight) / weight.sum(), by_topic, starts, counts)

    def draw(
        self, rng: np.random.Generator, users: np.ndarray, at: np.ndarray, num: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Candidates with their source's index in SOURCES. Shapes: (S, num) each."""
        shape = (len(users), num)
        source = rng.choice(len(SOURCES), shape, p=SHARES)
        popular = np.searchsorted(self.popular_cdf, rng.random(shape))
        blind = (rng.random(shape) * self.num_live).astype(np.int64)
        weights = self.world.taste_weights(users, at)
        picked = rng.random(shape)[..., None] > np.cumsum(weights, axis=1)[:, None, :]
        k = np.minimum(picked.sum(axis=2), TOPICS_PER_USER - 1)
        topic = self.world.readers.topic_UK[users[:, None], k]
        live = self.topic_live_T[topic]
        offset = (live * rng.random(shape) ** (1 / FRESH_BIAS)).astype(np.int64)
        place = np.minimum(self.topic_start_T[topic] + offset, self.num_live - 1)
        taste = np.where(live > 0, self.by_topic[place], blind)
        return np.choose(source, [np.minimum(popular, self.num_live - 1), blind, taste]), source

    def pages(
        self,
        rng: np.random.Generator,
        users: np.ndarray,
        at: np.ndarray,
        seen: Seen,
        rows: np.ndarray,
        page_size: int,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Pages without repeats and without what the reader has seen; -1 where nothing is left.

        `rows` are the readers' rows in `seen`. Shapes: items and sources, (S, page_size).
        """
        items, source = self.draw(rng, users, at, OVERDRAW * page_size)
        bad = seen.has(rows[:, None], items) | _repeats(items)
        order = np.argsort(bad, axis=1, kind="stable")[:, :page_size]
        items = np.where(bad, -1, items)
        return np.take_along_axis(items, order, 1), np.take_along_axis(source, order, 1)


def _repeats(items: np.ndarray) -> np.ndarray:
    """True at every place whose item stands further left in its row already."""
    order = np.argsort(items, axis=1, kind="stable")
    in_order = np.take_along_axis(items, order, 1)
    again = np.zeros_like(in_order, dtype=bool)
    again[:, 1:] = in_order[:, 1:] == in_order[:, :-1]
    repeats = np.empty_like(again)
    np.put_along_axis(repeats, order, again, 1)
    return repeats
