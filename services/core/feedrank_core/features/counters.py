"""Exponentially decayed counters: a value and the time it is of, and nothing that expires.

An event of weight w at time t weighs w * 2^-((now - t) / half_life) from then on. So a sum of
events is one number at one time, which decays as a whole: no window is kept, and the stream
(`fold`) and the batch (sums over the log) mean the same.

Source: forward decay, Cormode, Shkapenyuk, Srivastava and Xu, "Forward decay: a practical time
decay model for streaming systems", ICDE 2009.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from feedrank_core.contracts.features import HALF_LIVES_S, Counter, column


@dataclass(frozen=True)
class CounterState:
    """Every decayed counter of one entity at `at`; a missing column is zero.

    `at` is None before the first event.
    """

    values: Mapping[str, float] = field(default_factory=dict)
    at: datetime | None = None


def decay(elapsed_s: float, half_life_s: float) -> float:
    """The share of a value left after `elapsed_s`; 1 for an infinite half-life."""
    return 2.0 ** (-elapsed_s / half_life_s)


def value_at(state: CounterState, as_of: datetime) -> dict[str, float]:
    """The counters as they stand at `as_of`, by column.

    Raises: ValueError where `as_of` is before the state: what it held then is no longer known.
    """
    if state.at is None:
        return {}
    elapsed_s = (as_of - state.at).total_seconds()
    if elapsed_s < 0:
        raise ValueError(f"the state is of {state.at}, later than {as_of}")
    return _decayed(state.values, elapsed_s)


def fold(state: CounterState, at: datetime, increments: Mapping[Counter, float]) -> CounterState:
    """The state after one more event.

    A late event enters with the weight it has left, so that the order of folding is free.
    """
    latest = at if state.at is None else max(state.at, at)
    values = value_at(state, latest)
    age_s = (latest - at).total_seconds()
    for counter, amount in increments.items():
        for half_life, half_life_s in HALF_LIVES_S.items():
            name = column(counter, half_life)
            values[name] = values.get(name, 0.0) + amount * decay(age_s, half_life_s)
    return CounterState(values, latest)


_HALF_LIFE_OF = {column(c, h): s for c in Counter for h, s in HALF_LIVES_S.items()}


def _decayed(values: Mapping[str, float], elapsed_s: float) -> dict[str, float]:
    return {name: v * decay(elapsed_s, _HALF_LIFE_OF[name]) for name, v in values.items()}
