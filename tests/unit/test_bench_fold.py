"""`feedrank bench fold`: its readers behave as the simulator's, or as nobody's."""

from datetime import UTC, datetime

import numpy as np
import pytest
from feedrank_cli.bench.fold import EVENTS_A_SESSION, SESSION_S, in_sessions, scattered
from feedrank_simulator.bulk import PAGE_SIZE
from feedrank_simulator.history import simulate
from feedrank_simulator.policy import Shelf
from feedrank_simulator.sessions import Sessions
from feedrank_simulator.world import World

NUM_USERS, NUM_EVENTS = 1_000_000, 60_000


def test_a_session_is_as_long_as_those_of_the_simulator():
    world = World.make(1, 300, 2_000, days=3, end=datetime(2026, 1, 15, tzinfo=UTC))
    users, rng = np.arange(world.num_users), np.random.default_rng(1)
    runs = simulate(Shelf.of(world), rng, users, sessions_per_user_day=1.0, page_size=PAGE_SIZE)
    sessions = Sessions.joined(list(runs))
    seconds = np.mean(sessions.ended_at_S - sessions.served_at_S)
    assert sessions.num_events / len(sessions.user_S) == pytest.approx(EVENTS_A_SESSION, rel=0.15)
    assert seconds == pytest.approx(SESSION_S, rel=0.15)


def test_readers_come_back_in_sessions_and_not_where_they_are_scattered():
    readers = {
        shape: len(np.unique(shape(NUM_USERS, NUM_EVENTS, 7))) for shape in (in_sessions, scattered)
    }
    assert readers[in_sessions] == pytest.approx(NUM_EVENTS / EVENTS_A_SESSION, rel=0.05)
    assert readers[scattered] == pytest.approx(NUM_EVENTS, rel=0.05)
