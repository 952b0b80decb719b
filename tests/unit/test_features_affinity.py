"""Shares of a history: recent actions weigh more, ties go by name, strangers count for nothing."""

from itertools import pairwise

import pytest
from feedrank_core.contracts.features import AFFINITY_LENGTH
from feedrank_core.features.affinity import HALF_LIFE_S, largest_shares
from hypothesis import given
from hypothesis import strategies as st

MONTH = HALF_LIFE_S
actions = st.lists(
    st.tuples(st.floats(0, 60 * MONTH), st.sampled_from([None, *"abcdefghijklmn"])), max_size=50
)


def test_an_action_of_a_month_ago_counts_half():
    shares = largest_shares([(0.0, "old"), (MONTH, "new")])
    assert shares == [("new", pytest.approx(2 / 3)), ("old", pytest.approx(1 / 3))]


def test_ties_go_by_name_and_unpublished_items_count_for_nothing():
    assert largest_shares([(5.0, "b"), (5.0, "a"), (9.0, None)]) == [("a", 0.5), ("b", 0.5)]
    assert largest_shares([(9.0, None)]) == []


@given(actions)
def test_shares_are_the_same_in_any_order_and_at_any_time(drawn):
    shares = largest_shares(drawn)
    later = largest_shares([(at_s + 1.0, name) for at_s, name in reversed(drawn)])
    assert dict(later) == pytest.approx(dict(shares), abs=1e-6)
    assert len(shares) <= AFFINITY_LENGTH
    assert sum(share for _, share in shares) < 1.0 + 1e-9


@given(actions)
def test_the_largest_comes_first(drawn):
    shares = [share for _, share in largest_shares(drawn)]
    assert all(a >= b - 1e-12 for a, b in pairwise(shares))
