"""Counters and quality: pure functions, no I/O."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from feedrank_core.contracts.events import InteractionType
from feedrank_core.contracts.features import (
    COUNTER_COLUMNS,
    COUNTER_OF,
    Counter,
    increments,
    is_engaged,
)
from feedrank_core.contracts.items import DWELL_THRESHOLD_S, ItemType
from feedrank_core.features.counters import CounterState, fold, value_at
from feedrank_core.features.quality import (
    VALUES,
    exposures,
    popularity,
    quality,
    rate,
    smoothed_rate,
)
from hypothesis import given
from hypothesis import strategies as st

START = datetime(2026, 1, 1, tzinfo=UTC)
ONE_LIKE = {Counter.LIKES: 1.0}

moments = st.integers(0, 10**9).map(lambda s: START + timedelta(seconds=s))


def test_every_action_moves_one_counter():
    assert set(COUNTER_OF) == set(InteractionType)
    assert len(COUNTER_COLUMNS) == len(set(COUNTER_COLUMNS)) == len(Counter) * 5


def test_an_event_weighs_half_after_its_half_life():
    state = fold(CounterState(), START, ONE_LIKE)
    week = value_at(state, START + timedelta(days=7))
    assert week["likes_7d"] == pytest.approx(0.5)
    assert week["likes_1d"] == pytest.approx(2**-7)
    assert week["likes_forever"] == 1.0


@given(st.lists(moments, min_size=1, max_size=20))
def test_the_order_of_folding_is_free(times):
    def total(order):
        state = CounterState()
        for at in order:
            state = fold(state, at, ONE_LIKE)
        return state

    late, sorted_ = total(reversed(times)), total(sorted(times))
    assert late.at == sorted_.at
    assert late.values == pytest.approx(sorted_.values, rel=1e-9, abs=1e-12)


def test_the_past_of_a_state_is_refused():
    with pytest.raises(ValueError, match="later than"):
        value_at(fold(CounterState(), START, ONE_LIKE), START - timedelta(seconds=1))


@pytest.mark.parametrize("item_type", ItemType)
def test_a_view_engages_above_its_threshold_only(item_type):
    threshold = DWELL_THRESHOLD_S[item_type]
    assert not is_engaged(InteractionType.VIEW, threshold, item_type)
    assert is_engaged(InteractionType.VIEW, threshold + 0.1, item_type)
    assert not is_engaged(InteractionType.VIEW, 10 * threshold, None)


def test_an_event_moves_its_counter_and_engagement_and_dwell():
    assert increments(None, None, None) == {Counter.IMPRESSIONS: 1.0}
    assert increments(InteractionType.HIDE, None, ItemType.POST) == {Counter.HIDES: 1.0}
    assert increments(InteractionType.VIEW, 20.0, ItemType.VIDEO) == {
        Counter.VIEWS: 1.0,
        Counter.ENGAGEMENTS: 1.0,
        Counter.DWELL_S: 20.0,
    }


def counted(**counts):
    return dict.fromkeys(Counter, 0.0) | {Counter(name): v for name, v in counts.items()}


def test_an_unseen_item_has_the_quality_of_the_mean():
    assert quality(counted(), 0.1) == pytest.approx(0.5)
    assert quality(counted(impressions=100.0, clicks=10.0), 0.1) == pytest.approx(0.5)


def test_quality_grows_with_value_and_falls_with_reports():
    by_value = [
        quality(counted(impressions=100.0, clicks=clicks, hides=hides), 0.1)
        for clicks, hides in ((0.0, 12.0), (0.0, 0.0), (5.0, 0.0), (10.0, 0.0), (80.0, 0.0))
    ]
    by_reports = [
        quality(counted(impressions=100.0, clicks=10.0, reports=r), 0.1) for r in (0.0, 1.0, 2.0)
    ]
    assert all(a <= b for a, b in pairwise(by_value))
    assert all(a > b for a, b in pairwise(by_reports))
    assert by_value[0] == 0.0
    assert min(VALUES.values()) < 0


def test_quality_never_falls_below_nothing():
    assert quality(counted(impressions=10.0, reports=9.0), 0.1) == 0.0


def test_a_rate_of_actions_that_were_never_shown_stays_below_one():
    assert rate(40.0, 0.0, 0.1) < 1.0
    assert exposures(3.0, 40.0) == 40.0
    assert exposures(40.0, 3.0) == 40.0


def test_few_impressions_barely_move_a_rate():
    assert smoothed_rate(1.0, 1.0, 0.02) < 0.05


def test_an_idle_catalogue_keeps_its_order():
    assert popularity(0.0, 200.0) > popularity(0.0, 100.0)
