"""The simulated world: readers with latent tastes that drift, items with latent content.

Readers and items are indices here; ids, texts and vectors are made of them in `rendering`. No
array grows with readers times items. What readers do is in `behaviour`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
from feedrank_core.contracts.items import ItemType
from feedrank_core.contracts.users import AgeBand, Platform

from feedrank_simulator.behaviour import Actions, EventProbabilities
from feedrank_simulator.behaviour import act as _act
from feedrank_simulator.behaviour import event_probabilities as _event_probabilities
from feedrank_simulator.instants import Times, seconds
from feedrank_simulator.vocabulary import SUBTOPICS_PER_CATEGORY

LATENT_DIM = 32
TOPICS_PER_USER = 5
TURN_SHARE = 0.1
"""What a change of taste takes, as a share of all days."""
NOISE_ROWS = 4096
BACKLOG_DAYS = 30.0
"""Items of this many days before the first day exist when the world starts."""
COUNTRIES = ("DE", "FR", "GB", "US", "IN", "BR", "JP", "ES")
LANGUAGES = ("en", "de", "fr", "es", "pt", "ja")
ITEM_TYPES = tuple(ItemType)
AGE_BANDS = tuple(AgeBand)
PLATFORMS = tuple(Platform)


@dataclass(frozen=True)
class Topics:
    """Shapes: `vector_TD` (T, LATENT_DIM) unit rows, `popularity_T` sums to 1, `category_T`."""

    vector_TD: np.ndarray
    popularity_T: np.ndarray
    category_T: np.ndarray
    num_categories: int


@dataclass(frozen=True)
class Readers:
    """Readers by index. A taste is a mix of topics.

    Its weights move from start to end around an instant of the reader's own, `turn_U` as a share
    of the span: who takes to something new does so within days.
    """

    topic_UK: np.ndarray
    start_weight_UK: np.ndarray
    end_weight_UK: np.ndarray
    turn_U: np.ndarray
    noise_U: np.ndarray
    type_taste_UY: np.ndarray
    activity_U: np.ndarray
    age_band_U: np.ndarray
    country_U: np.ndarray
    platform_U: np.ndarray


@dataclass(frozen=True)
class Items:
    """Items by index, oldest first. Units: `created_N` Unix seconds, `duration_N` seconds."""

    topic_N: np.ndarray
    creator_N: np.ndarray
    noise_N: np.ndarray
    type_N: np.ndarray
    quality_N: np.ndarray
    created_N: np.ndarray
    duration_N: np.ndarray
    creator_style_RD: np.ndarray
    creator_language_R: np.ndarray
    creator_fame_R: np.ndarray


@dataclass(frozen=True)
class World:
    """A world made from a seed. Indices broadcast: readers (S, 1) with items (S, P) is a page."""

    seed: int
    start: datetime
    end: datetime
    topics: Topics
    readers: Readers
    items: Items
    noise_VD: np.ndarray

    @classmethod
    def make(
        cls,
        seed: int,
        num_users: int,
        num_items: int,
        num_categories: int = 20,
        num_creators: int | None = None,
        days: int = 14,
        *,
        end: datetime,
    ) -> World:
        """The same arguments give the same world. Raises: ValueError."""
        if min(num_users, num_items, num_categories, days) < 1:
            raise ValueError("users, items, categories and days must each be at least 1")
        if end.tzinfo is None:
            raise ValueError("end must be an aware time")
        end = end.astimezone(UTC)
        start = end - timedelta(days=days)
        topics = _make_topics(_stream(seed, 0), num_categories)
        creators = num_creators or max(5, num_items // 20)
        return cls(
            seed=seed,
            start=start,
            end=end,
            topics=topics,
            readers=_make_readers(_stream(seed, 1), num_users, topics),
            items=_make_items(_stream(seed, 2), num_items, creators, topics, start, end),
            noise_VD=_unit(_stream(seed, 3).standard_normal((NOISE_ROWS, LATENT_DIM))),
        )

    @property
    def num_users(self) -> int:
        """How many readers there are."""
        return len(self.readers.noise_U)

    @property
    def num_items(self) -> int:
        """How many items there are by the end of the last day."""
        return len(self.items.topic_N)

    @property
    def num_days(self) -> int:
        """Days from start to end."""
        return (self.end - self.start).days

    def num_live(self, at: Times) -> np.ndarray:
        """How many items exist at a time; they are the indices below this number."""
        return np.searchsorted(self.items.created_N, seconds(at), side="right")

    def taste_weights(self, users: np.ndarray, at: Times) -> np.ndarray:
        """Weights of each reader's topics at a time. Shapes: (..., K), summing to 1."""
        span = self.end.timestamp() - self.start.timestamp()
        passed = (seconds(at) - self.start.timestamp()) / span
        share = np.clip((passed - self.readers.turn_U[users]) / TURN_SHARE + 0.5, 0.0, 1.0)
        share = np.asarray(share, dtype=np.float32)[..., None]
        start, end = self.readers.start_weight_UK[users], self.readers.end_weight_UK[users]
        return start + share * (end - start)

    def taste(self, users: np.ndarray, at: Times) -> np.ndarray:
        """Latent tastes, unit length. Shapes: (..., LATENT_DIM)."""
        weights = self.taste_weights(users, at)
        mixed = np.zeros((*weights.shape[:-1], LATENT_DIM), dtype=np.float32)
        topic_UK = self.readers.topic_UK[users]
        for k in range(TOPICS_PER_USER):
            mixed += weights[..., k, None] * self.topics.vector_TD[topic_UK[..., k]]
        return _unit(mixed + 0.12 * self.noise_VD[self.readers.noise_U[users]])

    def content(self, items: np.ndarray) -> np.ndarray:
        """Latent contents, unit length: topic, the creator's style, and what is its own."""
        return _unit(
            self.topics.vector_TD[self.items.topic_N[items]]
            + 0.35 * self.items.creator_style_RD[self.items.creator_N[items]]
            + 0.35 * self.noise_VD[self.items.noise_N[items]]
        )

    def affinity(self, users: np.ndarray, items: np.ndarray, at: Times) -> np.ndarray:
        """Cosine of taste and content, -1 to 1."""
        return np.einsum("...d,...d->...", self.taste(users, at), self.content(items))

    def event_probabilities(
        self, users: np.ndarray, items: np.ndarray, at: Times, position: np.ndarray | int
    ) -> EventProbabilities:
        """The true probability of every event, given the impression."""
        return _event_probabilities(self, users, items, at, position)

    def click_probability(
        self, users: np.ndarray, items: np.ndarray, at: Times, position: np.ndarray | int
    ) -> np.ndarray:
        """The true probability that an impression is clicked: what an oracle would rank by.

        Affinity x type x quality x freshness x position bias; 0 before the item exists.
        """
        return self.event_probabilities(users, items, at, position).click

    def act(
        self,
        rng: np.random.Generator,
        users: np.ndarray,
        items: np.ndarray,
        at: Times,
        position: np.ndarray | int,
    ) -> Actions:
        """What the readers do to items on the screen, drawn from the true probabilities."""
        return _act(rng, self.event_probabilities(users, items, at, position))


def _stream(seed: int, *numbers: int) -> np.random.Generator:
    return np.random.default_rng([seed, *numbers])


def _unit(vectors: np.ndarray) -> np.ndarray:
    lengths = np.sqrt(np.einsum("...d,...d->...", vectors, vectors))[..., None]
    return (vectors / lengths).astype(np.float32)


def _zipf(num: int, exponent: float) -> np.ndarray:
    weights = 1.0 / np.arange(1, num + 1) ** exponent
    return weights / weights.sum()


def _make_topics(rng: np.random.Generator, num_categories: int) -> Topics:
    category_T = np.repeat(np.arange(num_categories), SUBTOPICS_PER_CATEGORY)
    category_CD = _unit(rng.standard_normal((num_categories, LATENT_DIM)))
    own_TD = _unit(rng.standard_normal((len(category_T), LATENT_DIM)))
    popularity_T = rng.permutation(_zipf(len(category_T), 0.6))
    return Topics(
        _unit(category_CD[category_T] + 0.9 * own_TD), popularity_T, category_T, num_categories
    )


def _make_readers(rng: np.random.Generator, num: int, topics: Topics) -> Readers:
    """Profiles first; the topics of a reader lean weakly on age band and country."""
    age = rng.integers(0, len(AGE_BANDS), num).astype(np.int8)
    country = rng.choice(len(COUNTRIES), num, p=_zipf(len(COUNTRIES), 0.7)).astype(np.int8)
    lean_AT = rng.normal(0, 0.7, (len(AGE_BANDS), topics.num_categories))[:, topics.category_T]
    lean_OT = rng.normal(0, 0.5, (len(COUNTRIES), topics.num_categories))[:, topics.category_T]
    topic_UK = np.zeros((num, TOPICS_PER_USER), dtype=np.int16)
    for a in range(len(AGE_BANDS)):
        for o in range(len(COUNTRIES)):
            members = np.flatnonzero((age == a) & (country == o))
            chances = topics.popularity_T * np.exp(lean_AT[a] + lean_OT[o])
            topic_UK[members] = rng.choice(
                len(chances), (len(members), TOPICS_PER_USER), p=chances / chances.sum()
            )
    start = _shares(rng, num)
    drift = rng.beta(2.0, 1.0, (num, 1)).astype(np.float32)
    platform = rng.integers(0, len(PLATFORMS), num).astype(np.int8)
    lean_PY = rng.normal(0, 0.5, (len(PLATFORMS), len(ITEM_TYPES)))
    type_taste = 1 / (1 + np.exp(-0.8 - lean_PY[platform] - rng.normal(0, 0.8, (num, 3))))
    return Readers(
        topic_UK=topic_UK,
        start_weight_UK=start,
        end_weight_UK=(1 - drift) * start + drift * _shares(rng, num),
        turn_U=rng.random(num, np.float32),
        noise_U=rng.integers(0, NOISE_ROWS, num).astype(np.int16),
        type_taste_UY=type_taste.astype(np.float32),
        activity_U=rng.lognormal(-0.32, 0.8, num).astype(np.float32),
        age_band_U=age,
        country_U=country,
        platform_U=platform,
    )


def _shares(rng: np.random.Generator, num: int) -> np.ndarray:
    shares = rng.gamma(0.6, 1.0, (num, TOPICS_PER_USER)) + 1e-3
    return (shares / shares.sum(axis=1, keepdims=True)).astype(np.float32)


def _make_items(
    rng: np.random.Generator,
    num: int,
    creators: int,
    topics: Topics,
    start: datetime,
    end: datetime,
) -> Items:
    """Creators are few and famous or many and small; half of the items are from before `start`."""
    fame = _zipf(creators, 0.9)
    creator = rng.choice(creators, num, p=fame).astype(np.int32)
    home_R2 = rng.choice(len(topics.category_T), (creators, 2), p=topics.popularity_T)
    topic = home_R2[creator, rng.integers(0, 2, num)].astype(np.int16)
    strays = rng.random(num) < 0.2
    topic[strays] = rng.choice(len(topics.category_T), int(strays.sum()), p=topics.popularity_T)
    item_type = rng.choice(len(ITEM_TYPES), num, p=(0.5, 0.3, 0.2)).astype(np.int8)
    reputation = rng.normal(0, 0.7, creators) + 0.15 * np.log(fame * creators)
    quality = 1 / (1 + np.exp(-reputation[creator] - rng.normal(0, 1.0, num)))
    span = end.timestamp() - start.timestamp()
    age = np.where(
        rng.random(num) < 0.5,
        span * rng.random(num),
        span + BACKLOG_DAYS * 86_400 * rng.random(num),
    )
    median_s = np.array([0.0, 60.0, 180.0])[item_type]
    return Items(
        topic_N=topic,
        creator_N=creator,
        noise_N=rng.integers(0, NOISE_ROWS, num).astype(np.int16),
        type_N=item_type,
        quality_N=quality.astype(np.float32),
        created_N=np.sort(end.timestamp() - age),
        duration_N=np.round(median_s * rng.lognormal(0, 0.7, num)).astype(np.float32),
        creator_style_RD=_unit(rng.standard_normal((creators, LATENT_DIM))),
        creator_language_R=rng.choice(6, creators, p=_zipf(6, 1.5)).astype(np.int8),
        creator_fame_R=(fame * creators).astype(np.float32),
    )
