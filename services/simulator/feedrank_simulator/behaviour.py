"""What readers do to what they see: the true probabilities, and draws from them.

An item on the screen (an impression) may be viewed, a viewed one clicked, a clicked one liked,
shared, commented or its creator followed; a viewed one that was not clicked hidden or reported.
Numbers are our own choice. In a world of 2000 items they give an impression of a random page a
click rate of about 2 %, of the most popular items 5 %, of an oracle's page 20 %.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from feedrank_core.contracts.events import InteractionType

from feedrank_simulator.instants import Times, seconds

if TYPE_CHECKING:
    from feedrank_simulator.world import World

POSITION_EXPONENT = 0.45
"""Click curves of ranked lists fall off like a power of the rank (Joachims et al., 2017)."""
FRESH_HALF_LIFE_S = 3 * 86_400.0
MIN_DWELL_S = 1.0
MAX_DWELL_S = 900.0
DWELL_SPREAD = 0.6
_DWELL_MEDIAN_S = np.array([1.8, 5.0, 10.0], dtype=np.float32)  # post, video, article


@dataclass(frozen=True)
class EventProbabilities:
    """What an impression leads to, in the shape of the page.

    `view` and `click` are given the impression, `after_click` a click, `after_view` a view
    without click. Units: `dwell_median_s` seconds, of a view without click.
    """

    view: np.ndarray
    click: np.ndarray
    after_click: dict[InteractionType, np.ndarray]
    after_view: dict[InteractionType, np.ndarray]
    dwell_median_s: np.ndarray


@dataclass(frozen=True)
class Actions:
    """What was done, in the shape of the page; `dwell_s` is 0 where nothing was viewed."""

    done: dict[InteractionType, np.ndarray]
    dwell_s: np.ndarray


def examination(position: np.ndarray | int) -> np.ndarray:
    """The position bias: the chance that an item on the screen is really looked at."""
    return (1.0 + np.asarray(position, dtype=np.float32)) ** -POSITION_EXPONENT


def attraction(world: World, users: np.ndarray, items: np.ndarray, at: Times) -> np.ndarray:
    """Click probability of an item that is looked at: affinity x type x quality x freshness."""
    liked = 1 / (1 + np.exp(-9.0 * (world.affinity(users, items, at) - 0.40)))
    fits = world.readers.type_taste_UY[users, world.items.type_N[items]]
    good = 0.3 + 0.7 * world.items.quality_N[items]
    age_s = seconds(at) - world.items.created_N[items]
    fresh = 0.5 + 0.5 * np.exp2(-np.maximum(age_s, 0.0) / FRESH_HALF_LIFE_S)
    return np.where(age_s < 0, 0.0, liked * fits * good * fresh)


def event_probabilities(
    world: World, users: np.ndarray, items: np.ndarray, at: Times, position: np.ndarray | int
) -> EventProbabilities:
    """The true probability of every event, given the impression."""
    attracted = attraction(world, users, items, at)
    looked = examination(position)
    quality = world.items.quality_N[items]
    return EventProbabilities(
        view=looked * (0.25 + 0.75 * attracted),
        click=looked * attracted,
        after_click={
            InteractionType.LIKE: 0.1 + 0.4 * attracted,
            InteractionType.SHARE: 0.02 + 0.1 * attracted * quality,
            InteractionType.COMMENT: 0.02 + 0.08 * attracted,
            InteractionType.FOLLOW: 0.01 + 0.08 * attracted,
        },
        after_view={
            InteractionType.HIDE: 0.03 * (1 - attracted),
            InteractionType.REPORT: 0.012 * (1 - quality) ** 2,
        },
        dwell_median_s=_DWELL_MEDIAN_S[world.items.type_N[items]] * np.exp(2.0 * attracted),
    )


def act(rng: np.random.Generator, chances: EventProbabilities) -> Actions:
    """Draw what is done: a click implies a view, and so on down the module's first lines."""
    shape = chances.click.shape
    drawn = rng.random(shape)
    viewed = drawn < chances.view
    clicked = drawn < chances.click
    done = {InteractionType.VIEW: viewed, InteractionType.CLICK: clicked}
    for kind, chance in chances.after_click.items():
        done[kind] = clicked & (rng.random(shape) < chance)
    for kind, chance in chances.after_view.items():
        done[kind] = viewed & ~clicked & (rng.random(shape) < chance)
    spread = rng.lognormal(0.0, DWELL_SPREAD, shape)
    dwell_s = chances.dwell_median_s * np.where(clicked, 3.0, 1.0) * spread
    dwell_s = np.where(viewed, np.clip(dwell_s, MIN_DWELL_S, MAX_DWELL_S), 0.0)
    return Actions(done, np.round(dwell_s, 2))


def look_depth(rng: np.random.Generator, num_pages: int, page_size: int) -> np.ndarray:
    """How many places of each page enter the screen, at least 1. Shapes: (S,) int64.

    It does not depend on what is there, so that click rates by impression are the true ones.
    """
    return np.minimum(rng.geometric(0.08, num_pages), page_size)
