"""Folds many events into many entities' decayed counters at once: `counters.fold`, in numpy.

Shapes: N entities, M moves; a counter's half-lives stand side by side, as in COUNTER_COLUMNS.
Units: instants are microseconds since 1970, exact where floats of seconds are not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from feedrank_core.contracts.features import COUNTER_COLUMNS, HALF_LIVES_S, Counter

NEVER_US = np.iinfo(np.int64).min
"""The instant of a state that no event has reached."""
US_PER_S = 1e6
NUM_HALF_LIVES = len(HALF_LIVES_S)
NUM_COLUMNS = len(COUNTER_COLUMNS)
COUNTER_INDEX: dict[Counter, int] = {c: n for n, c in enumerate(Counter)}
_HALF_LIVES_S = np.array(list(HALF_LIVES_S.values()))
_HALF_LIFE_OF_COLUMN_S = np.tile(_HALF_LIVES_S, len(Counter))


@dataclass(frozen=True)
class Moves:
    """What events add: `amount` to one counter of the entity at `row`. Shapes: (M,) each."""

    row: np.ndarray
    counter: np.ndarray
    amount: np.ndarray
    at_us: np.ndarray


def decayed(value: np.ndarray, elapsed_us: np.ndarray) -> np.ndarray:
    """Counters as they stand later. Shapes: value (N, columns), elapsed_us (N,) to the same."""
    lives = (elapsed_us / US_PER_S)[:, None] / _HALF_LIFE_OF_COLUMN_S
    return value * np.exp2(-lives)


def fold(value: np.ndarray, at_us: np.ndarray, moves: Moves) -> None:
    """Bring the moves into the states, in place. Shapes: value (N, columns), at_us (N,).

    A late event enters with the weight it has left, so that the order of folding is free.
    """
    row, place = np.unique(moves.row, return_inverse=True)
    before_us = at_us[row]
    latest_us = before_us.copy()
    np.maximum.at(latest_us, place, moves.at_us)
    elapsed_us = np.where(before_us == NEVER_US, 0, latest_us - before_us)
    age_s = (latest_us[place] - moves.at_us) / US_PER_S
    weight_MH = moves.amount[:, None] * np.exp2(-(age_s[:, None] / _HALF_LIVES_S))
    first_column = place * NUM_COLUMNS + moves.counter * NUM_HALF_LIVES
    column_MH = first_column[:, None] + np.arange(NUM_HALF_LIVES)
    size = len(row) * NUM_COLUMNS
    added = np.bincount(column_MH.ravel(), weight_MH.ravel(), minlength=size)
    value[row] = decayed(value[row], elapsed_us) + added.reshape(len(row), NUM_COLUMNS)
    at_us[row] = latest_us


def merged(
    value: np.ndarray, at_us: int, other: np.ndarray, other_at_us: int
) -> tuple[np.ndarray, int]:
    """The counters of two entities as one. Shapes: value and other (columns,)."""
    latest_us = max(at_us, other_at_us)
    parts = [
        decayed(part[None], np.array([latest_us - at]))[0]
        for part, at in ((value, at_us), (other, other_at_us))
        if at != NEVER_US
    ]
    return sum(parts, np.zeros(NUM_COLUMNS)), latest_us
