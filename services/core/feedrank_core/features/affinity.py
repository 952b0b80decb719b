"""What a reader likes: shares of the history by category or creator, recent actions weighing more.

An action that lies `age_s` before the reader's last one weighs 2^-(age_s / half-life), so the
shares need no time of their own: they change with an action, and never between two.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from feedrank_core.contracts.features import AFFINITY_LENGTH, HALF_LIVES_S, HalfLife

HALF_LIFE_S = HALF_LIVES_S[HalfLife.MONTH]
TIE_DIGITS = 12
"""Shares that agree so far are ties: engines add in different orders."""


def weight(age_s: Any) -> Any:
    """What an action counts, of floats, numpy arrays or Ibis expressions."""
    return 2.0 ** (-age_s / HALF_LIFE_S)


def largest_shares(actions: Iterable[tuple[float, str | None]]) -> list[tuple[str, float]]:
    """The largest AFFINITY_LENGTH shares of a history, ties by name.

    `actions` are (Unix seconds, category or creator of the item as last published); those of
    items that nobody published (None) count for nothing.
    """
    known = [(at_s, name) for at_s, name in actions if name is not None]
    if not known:
        return []
    last_s = max(at_s for at_s, _ in known)
    weights: defaultdict[str, float] = defaultdict(float)
    for at_s, name in known:
        weights[name] += weight(last_s - at_s)
    total = sum(weights.values())
    shares = [(name, value / total) for name, value in weights.items()]
    shares.sort(key=lambda pair: (-round(pair[1], TIE_DIGITS), pair[0]))
    return shares[:AFFINITY_LENGTH]
