"""The logging policy of simulated history: what a platform without a model would have shown.

Each place of a page is filled by popularity, blindly at random, or by a noisy idea of the
reader's taste; the places are then shuffled, so that position says nothing about the source and
the position bias can be told from the data.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from feedrank_core.contracts.slates import Source

from feedrank_simulator.instants import DAY_S
from feedrank_simulator.world import World

SOURCES = (Source.GLOBAL_POPULAR, Source.EXPLORATION, Source.CACHED)
SHARES = (0.35, 0.25, 0.4)
OVERDRAW = 2
"""Candidates per place, because some were shown before and some are drawn twice."""
SEEN_SLOTS = 8192
POPULAR_HALF_LIFE_DAYS = 7.0
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
    """The stock of every day: what existed when the day began.

    Popularity fades alike for all, so one running sum serves every day: a day sees its beginning.
    The same holds for the items of a topic, oldest first. Shapes: `popular_sum_N` float64,
    `by_topic_N` int32, `topic_start_T`, `num_live_Y` and `topic_live_YT` by day (Y).
    """

    world: World
    popular_sum_N: np.ndarray
    by_topic_N: np.ndarray
    topic_start_T: np.ndarray
    num_live_Y: np.ndarray
    topic_live_YT: np.ndarray

    @classmethod
    def of(cls, world: World) -> Shelf:
        """Popularity is the crowd's: quality, the creator's fame, the topic's, and youth."""
        topic, num_topics = world.items.topic_N, len(world.topics.category_T)
        day_start_Y = world.start.timestamp() + DAY_S * np.arange(world.num_days)
        num_live = np.maximum(1, world.num_live(day_start_Y))
        edges = zip(np.r_[0, num_live[:-1]], num_live, strict=True)
        born_YT = [np.bincount(topic[a:b], minlength=num_topics) for a, b in edges]
        counts = np.bincount(topic, minlength=num_topics)
        return cls(
            world=world,
            popular_sum_N=np.cumsum(_popularity(world)),
            by_topic_N=np.argsort(topic, kind="stable").astype(np.int32),
            topic_start_T=np.concatenate([[0], np.cumsum(counts)[:-1]]),
            num_live_Y=num_live,
            topic_live_YT=np.cumsum(born_YT, axis=0),
        )

    def draw(
        self, rng: np.random.Generator, day: int, users: np.ndarray, at: np.ndarray, num: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Candidates with their source's index in SOURCES. Shapes: (S, num) each."""
        shape = (len(users), num)
        num_live = self.num_live_Y[day]
        source = np.searchsorted(np.cumsum(SHARES[:-1]), rng.random(shape, np.float32)).astype(
            np.int8
        )
        items = (rng.random(shape) * num_live).astype(np.int32)
        popular = source == SOURCES.index(Source.GLOBAL_POPULAR)
        sums = self.popular_sum_N[:num_live]
        chosen = np.searchsorted(sums, rng.random(int(popular.sum())) * sums[-1])
        items[popular] = np.minimum(chosen, num_live - 1)
        rows, places = np.nonzero(source == SOURCES.index(Source.CACHED))
        topic = self._topics(rng, users, at, rows)
        live = self.topic_live_YT[day, topic]
        offset = (live * rng.random(len(rows)) ** (1 / FRESH_BIAS)).astype(np.int64)
        there = live > 0
        items[rows[there], places[there]] = self.by_topic_N[
            self.topic_start_T[topic[there]] + offset[there]
        ]
        return items, source

    def _topics(
        self, rng: np.random.Generator, users: np.ndarray, at: np.ndarray, rows: np.ndarray
    ) -> np.ndarray:
        """A topic of the taste of each row's reader."""
        bounds_SK = np.cumsum(self.world.taste_weights(users, at), axis=1)
        drawn = rng.random(len(rows), np.float32)[:, None] > bounds_SK[rows, :-1]
        return self.world.readers.topic_UK[users[rows], drawn.sum(axis=1)]

    def pages(
        self,
        rng: np.random.Generator,
        day: int,
        users: np.ndarray,
        at: np.ndarray,
        seen: Seen,
        rows: np.ndarray,
        page_size: int,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Pages without repeats and without what the reader has seen; -1 where nothing is left.

        `rows` are the readers' rows in `seen`. Shapes: items and sources, (S, page_size).
        """
        items, source = self.draw(rng, day, users, at, OVERDRAW * page_size)
        bad = seen.has(rows[:, None], items) | _repeats(items)
        order = np.argsort(bad, axis=1, kind="stable")[:, :page_size]
        items = np.where(bad, -1, items)
        return np.take_along_axis(items, order, 1), np.take_along_axis(source, order, 1)


def _popularity(world: World) -> np.ndarray:
    """What the crowd sees of each item, up to a factor that a day has for all. Shapes: (N,)."""
    items = world.items
    youth = np.exp2((items.created_N - world.end.timestamp()) / (POPULAR_HALF_LIFE_DAYS * DAY_S))
    weight = items.quality_N * youth
    weight *= np.sqrt(items.creator_fame_R[items.creator_N])
    weight *= np.sqrt(world.topics.popularity_T[items.topic_N])
    return weight**1.5


def _repeats(items: np.ndarray) -> np.ndarray:
    """True at every place whose item stands further left in its row already."""
    order = np.argsort(items, axis=1, kind="stable")
    in_order = np.take_along_axis(items, order, 1)
    again = np.zeros_like(in_order, dtype=bool)
    again[:, 1:] = in_order[:, 1:] == in_order[:, :-1]
    repeats = np.empty_like(again)
    np.put_along_axis(repeats, order, again, 1)
    return repeats
