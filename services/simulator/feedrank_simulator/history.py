"""What readers did, day by day, under the logging policy."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from feedrank_simulator.instants import DAY_S
from feedrank_simulator.policy import Seen, Shelf
from feedrank_simulator.sessions import Sessions, play

MAX_SESSIONS_PER_DAY = 8
PAUSE_S = 120.0
PILOT_READERS = 512
PILOT_RUNS = 3
"""Rates are found by trial, since a busy reader's day holds MAX_SESSIONS_PER_DAY at most."""


class TargetError(ValueError):
    """So many events cannot come of these readers and days; the message says how many can."""


def simulate(
    shelf: Shelf,
    rng: np.random.Generator,
    users: np.ndarray,
    *,
    sessions_per_user_day: float,
    page_size: int,
) -> Iterator[Sessions]:
    """Sessions of these readers, each reader's in order, none showing an item a second time."""
    world = shelf.world
    seen = Seen(len(users))
    number = np.zeros(len(users), dtype=np.int64)
    free_at = np.full(len(users), world.start.timestamp())
    for day in range(world.num_days):
        day_start = world.start.timestamp() + day * DAY_S
        count = rng.poisson(sessions_per_user_day * world.readers.activity_U[users])
        count = np.minimum(count, MAX_SESSIONS_PER_DAY)
        hours = np.sort(rng.beta(2.2, 1.6, (len(users), MAX_SESSIONS_PER_DAY)), axis=1)
        for k in range(int(count.max(initial=0))):
            rows = np.flatnonzero(count > k)
            served_at = np.maximum(day_start + 0.97 * DAY_S * hours[rows, k], free_at[rows])
            pages = shelf.pages(rng, day, users[rows], served_at, seen, rows, page_size)
            real = (pages[0][:, 0] >= 0) & (served_at < world.end.timestamp() - 60.0)
            rows, served_at = rows[real], served_at[real]
            pages = pages[0][real], pages[1][real]
            sessions = play(world, rng, users[rows], number[rows], served_at, pages)
            shown, place = np.nonzero(sessions.on_screen_SP)
            seen.add(rows[shown], sessions.item_SP[shown, place])
            number[rows] += 1
            free_at[rows] = np.maximum(served_at, sessions.ended_at_S) + PAUSE_S
            yield sessions


def rate_for(shelf: Shelf, events_target: int, *, seed: int, page_size: int) -> float:
    """Sessions per reader and day that give about `events_target`. Raises: TargetError."""
    if events_target < 1:
        raise ValueError("events_target must be at least 1")
    num_users = shelf.world.num_users
    users = np.unique(np.linspace(0, num_users - 1, PILOT_READERS).astype(np.int64))
    rate, expected = 1.0, 0.0
    for _ in range(PILOT_RUNS):
        rng = np.random.default_rng([seed, 21])
        runs = simulate(shelf, rng, users, sessions_per_user_day=rate, page_size=page_size)
        expected = sum(sessions.num_events for sessions in runs) * num_users / len(users)
        if expected >= 0.95 * events_target and expected <= 1.05 * events_target:
            break
        rate *= events_target / max(expected, 1.0)
    if expected < 0.5 * events_target:
        raise TargetError(
            f"{events_target:,} events are more than {num_users:,} readers do in"
            f" {shelf.world.num_days} days; about {expected:,.0f} are possible"
        )
    return rate
