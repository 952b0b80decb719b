"""The parts of the stream's state that know no I/O: each equals its plain definition."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from feedrank_core.contracts.features import (
    COUNTER_COLUMNS,
    HALF_LIVES_S,
    HISTORY_LENGTH,
    SEEN_LENGTH,
    Counter,
    column,
)
from feedrank_core.contracts.items import WITHDRAWN
from feedrank_core.contracts.redis_keys import HIDDEN, SEEN
from feedrank_core.features import counters
from feedrank_core.features.counters import CounterState, value_at
from feedrank_feature_store.stream import histories, key_lists
from feedrank_feature_store.stream.catalogue_state import ItemVersion, with_version
from feedrank_feature_store.stream.counting import (
    COUNTER_INDEX,
    NEVER_US,
    NUM_COLUMNS,
    Moves,
    fold,
    merged,
)
from feedrank_feature_store.stream.histories import Action
from hypothesis import given, settings
from hypothesis import strategies as st

START = datetime(2026, 1, 1, tzinfo=UTC)
START_US = int(START.timestamp()) * 10**6

YEAR_US = 366 * 86_400 * 10**6
drawn_moves = st.lists(
    st.tuples(
        st.integers(0, 4),
        st.sampled_from(list(Counter)),
        st.floats(0.001, 1000),
        st.integers(0, YEAR_US),
    ),
    min_size=1,
    max_size=40,
)


def as_moves(drawn: list) -> Moves:
    return Moves(
        np.array([row for row, *_ in drawn]),
        np.array([COUNTER_INDEX[counter] for _, counter, *_ in drawn]),
        np.array([amount for *_, amount, _ in drawn]),
        np.array([START_US + us for *_, us in drawn]),
    )


def one_by_one(drawn: list, row: int) -> CounterState:
    state = CounterState()
    for of, counter, amount, us in drawn:
        if of == row:
            state = counters.fold(state, START + timedelta(microseconds=us), {counter: amount})
    return state


@settings(deadline=None)
@given(drawn_moves, st.data())
def test_a_fold_of_batches_in_any_order_equals_the_fold_event_by_event(drawn, data):
    shuffled = data.draw(st.permutations(drawn))
    cut = data.draw(st.integers(0, len(drawn)))
    value, at_us = np.zeros((5, NUM_COLUMNS)), np.full(5, NEVER_US)
    for part in (shuffled[:cut], shuffled[cut:]):
        if part:
            fold(value, at_us, as_moves(part))
    for row in range(5):
        expected = one_by_one(drawn, row)
        if expected.at is None:
            assert at_us[row] == NEVER_US and not value[row].any()
            continue
        assert START + timedelta(microseconds=int(at_us[row]) - START_US) == expected.at
        wanted = [expected.values.get(name, 0.0) for name in COUNTER_COLUMNS]
        assert value[row].tolist() == pytest.approx(wanted, rel=1e-9, abs=1e-12)


@settings(deadline=None)
@given(drawn_moves)
def test_two_readers_merged_count_as_one_who_did_it_all(drawn):
    value, at_us = np.zeros((6, NUM_COLUMNS)), np.full(6, NEVER_US)
    fold(value, at_us, as_moves([(row % 2, *rest) for row, *rest in drawn]))
    fold(value, at_us, as_moves([(5, *rest) for _, *rest in drawn]))
    both, both_at_us = merged(value[0], int(at_us[0]), value[1], int(at_us[1]))
    assert both_at_us == at_us[5]
    assert both.tolist() == pytest.approx(value[5].tolist(), rel=1e-9, abs=1e-12)


def test_columns_stand_as_the_contract_orders_them():
    value, at_us = np.zeros((1, NUM_COLUMNS)), np.full(1, NEVER_US)
    fold(value, at_us, as_moves([(0, Counter.SHARES, 3.0, 0)]))
    counted = {name for name, v in zip(COUNTER_COLUMNS, value[0], strict=True) if v}
    assert counted == {column(Counter.SHARES, half_life) for half_life in HALF_LIVES_S}
    later = value_at(one_by_one([(0, Counter.SHARES, 3.0, 0)], 0), START)
    assert later == dict.fromkeys(counted, 3.0)


actions = st.builds(
    Action,
    at_us=st.integers(0, 5),
    event_id=st.text(min_size=1, max_size=3).map(str.encode),
    item_key=st.integers(-(2**63), 2**63 - 1),
    code=st.integers(0, 7),
)


@settings(deadline=None)
@given(st.lists(actions, max_size=80), st.integers(0, 80))
def test_a_history_is_the_last_actions_whatever_their_order_of_arrival(drawn, cut):
    packed = histories.extend(histories.extend(b"", drawn[:cut]), drawn[cut:])
    assert histories.unpack(packed) == sorted(drawn)[-HISTORY_LENGTH:]


def packed(keys: Iterable[int]) -> bytes:
    return np.fromiter(keys, "<i8").tobytes()


def extended(held: Iterable[int], newer: Iterable[int], limit: int) -> list[int]:
    ordered: dict[int, None] = {}
    for key in (*held, *newer):
        ordered.pop(key, None)
        ordered[key] = None
    return list(ordered)[-limit:]


keys = st.lists(st.integers(-3, 3))


@settings(deadline=None)
@given(keys, keys, st.integers(1, 5))
def test_a_packed_list_of_keys_extends_as_a_list_of_numbers_does(held, newer, limit):
    before = extended([], held, limit)
    after = key_lists.extend(packed(before), [packed([key]) for key in newer], limit=limit)
    assert after == packed(extended(before, newer, limit))
    assert key_lists.extend(after, [packed([key]) for key in newer], limit=limit) == after


@pytest.mark.parametrize("key", [SEEN, HIDDEN], ids=lambda key: key.name)
def test_a_full_list_of_keys_fits_its_value(key):
    full = packed(range(SEEN_LENGTH))
    after = key_lists.extend(full, [packed([-1])], limit=SEEN_LENGTH)
    assert after == full[8:] + packed([-1])
    assert len(after) <= key.max_bytes


versions = st.builds(
    ItemVersion,
    item_id=st.just("i"),
    item_type=st.just("video"),
    creator_id=st.sampled_from(["c", "d", WITHDRAWN]),
    category=st.sampled_from(["x", "y"]),
    created_at_us=st.just(0),
    active=st.booleans(),
    at_us=st.integers(0, 3),
    offset=st.integers(0, 10**6),
)


@settings(deadline=None)
@given(st.lists(versions, min_size=1, unique_by=lambda v: v.offset), st.randoms())
def test_versions_of_an_item_may_come_in_any_order(drawn, random):
    shuffled = list(drawn)
    random.shuffle(shuffled)
    state = other = None
    for one, two in zip(drawn, shuffled, strict=True):
        state, other = with_version(state, one), with_version(other, two)
    assert state == other and state is not None
    published = sorted((v for v in drawn if v.is_published), key=lambda v: (v.at_us, v.offset))
    last = max(drawn, key=lambda v: (v.at_us, v.offset))
    assert state.is_published == bool(published)
    if published:
        assert state.first_at_us == published[0].at_us
        assert state.category == published[-1].category
        assert state.is_active == (published[-1].active and last.active)
