"""The simulated world: what is true of readers, items and their probabilities."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from feedrank_core.contracts.events import InteractionType
from feedrank_simulator.behaviour import examination
from feedrank_simulator.world import World

END = datetime(2026, 1, 15, tzinfo=UTC)


@pytest.fixture(scope="module")
def world() -> World:
    return World.make(7, 300, 800, end=END)


def test_the_same_seed_gives_the_same_probabilities_and_another_seed_does_not(world: World) -> None:
    users, items = np.arange(300)[:, None], np.arange(800)[None, :]
    truth = world.click_probability(users, items, END, 0)
    again = World.make(7, 300, 800, end=END).click_probability(users, items, END, 0)
    other = World.make(8, 300, 800, end=END).click_probability(users, items, END, 0)
    assert np.array_equal(truth, again)
    assert not np.allclose(truth, other)


def test_probabilities_lie_between_zero_and_one_and_a_click_is_also_a_view(world: World) -> None:
    chances = world.event_probabilities(
        np.arange(300)[:, None], np.arange(800)[None, :], END, np.arange(800)[None, :] % 50
    )
    every = [chances.view, chances.click, *chances.after_click.values()]
    for chance in [*every, *chances.after_view.values()]:
        assert np.isfinite(chance).all()
        assert (chance >= 0).all()
        assert (chance <= 1).all()
    assert (chances.click <= chances.view).all()


def test_click_probability_falls_with_position_by_the_examination_curve(world: World) -> None:
    users = np.arange(300)
    first = world.click_probability(users, users, END, 0)
    for position in (1, 5, 19):
        lower = world.click_probability(users, users, END, position)
        assert np.allclose(lower, first * examination(position), rtol=1e-5)
        assert (lower <= first).all()


def test_an_item_is_never_clicked_before_it_exists(world: World) -> None:
    young = np.flatnonzero(world.items.created_N > END.timestamp() - 86_400)
    assert len(young) > 0
    before = world.click_probability(
        np.zeros(len(young), int), young, END - timedelta(days=1, seconds=1), 0
    )
    assert (before == 0).all()
    assert world.num_live(END - timedelta(days=1)) == 800 - len(young)


def test_a_taste_turns_within_days_of_the_readers_own(world: World) -> None:
    users = np.arange(300)
    days = [world.start + timedelta(days=day) for day in range(world.num_days + 1)]
    taste_AUD = np.stack([world.taste(users, at) for at in days])
    over_all = np.einsum("ud,ud->u", taste_AUD[0], taste_AUD[-1])
    over_a_day_AU = np.einsum("aud,aud->au", taste_AUD[1:], taste_AUD[:-1])
    assert 0.5 < over_all.mean() < 0.95
    steady = (over_a_day_AU > 0.9999).mean(axis=0)
    assert steady.mean() > 0.7
    turned_at = over_a_day_AU.argmin(axis=0)
    assert set(turned_at) == set(range(world.num_days))


def test_an_oracle_ranking_beats_popularity_and_popularity_beats_chance(world: World) -> None:
    truth = world.click_probability(np.arange(300)[:, None], np.arange(800)[None, :], END, 0)
    oracle = np.sort(truth, axis=1)[:, -10:].mean()
    popular = truth[:, np.argsort(-truth.mean(axis=0))[:10]].mean()
    assert oracle > 2 * popular
    assert popular > 1.5 * truth.mean()


def test_what_readers_do_matches_the_true_probabilities(world: World) -> None:
    rng = np.random.default_rng(3)
    num = 200_000
    users, items = rng.integers(0, 300, num), rng.integers(0, 800, num)
    position = rng.integers(0, 20, num)
    chances = world.event_probabilities(users, items, END, position)
    actions = world.act(rng, users, items, END, position)
    clicked, viewed = actions.done[InteractionType.CLICK], actions.done[InteractionType.VIEW]
    assert_rate(clicked, chances.click)
    assert_rate(viewed, chances.view)
    for kind, chance in chances.after_click.items():
        assert_rate(actions.done[kind][clicked], chance[clicked])
        assert not actions.done[kind][~clicked].any()
    for kind, chance in chances.after_view.items():
        assert_rate(actions.done[kind][viewed & ~clicked], chance[viewed & ~clicked])
    assert (viewed | ~clicked).all()
    assert ((actions.dwell_s >= 1) == viewed).all()


def test_profiles_tell_a_little_of_the_taste() -> None:
    world = World.make(1, 20_000, 10, end=END)
    category = world.topics.category_T[world.readers.topic_UK[:, 0]]
    table = np.zeros((7, world.topics.num_categories))
    np.add.at(table, (world.readers.age_band_U, category), 1)
    expected = table.sum(1, keepdims=True) * table.sum(0, keepdims=True) / table.sum()
    chi_square = ((table - expected) ** 2 / expected).sum()
    assert chi_square > 3 * 6 * 19  # three times what independence would give
    assert table.max(axis=1).sum() / table.sum() < 0.5


def test_fame_of_creators_is_long_tailed(world: World) -> None:
    counts = np.sort(np.bincount(world.items.creator_N))[::-1]
    assert counts[:4].sum() > 0.25 * counts.sum()


@pytest.mark.parametrize("bad", [{"num_users": 0}, {"num_items": 0}, {"days": 0}])
def test_an_empty_world_is_refused(bad: dict[str, int]) -> None:
    sizes = {"num_users": 1, "num_items": 1, "days": 1} | bad
    with pytest.raises(ValueError, match="at least 1"):
        World.make(1, end=END, **sizes)


def test_a_naive_end_is_refused() -> None:
    with pytest.raises(ValueError, match="aware"):
        World.make(1, 1, 1, end=datetime(2026, 1, 1))  # noqa: DTZ001


def assert_rate(happened: np.ndarray, chance: np.ndarray) -> None:
    """Within four standard errors of the sum of independent draws."""
    error = abs(happened.sum() - chance.sum())
    assert error <= 4 * np.sqrt((chance * (1 - chance)).sum()) + 1
