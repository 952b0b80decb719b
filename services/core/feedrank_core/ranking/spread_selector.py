"""Selector: the best items, no creator and no category crowding a stretch of the feed."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from feedrank_core.ranking.candidates import Candidates

WINDOW = 10
"""Neighbouring places that are looked at together: about two screens of a phone."""
MAX_PER_CREATOR = 2
MAX_PER_CATEGORY = 5
"""In any window. Our own choice; an experiment may change them."""

_CATEGORY, _CREATOR, _TAKEN = 1, 2, 64
"""What a broken cap costs; a creator's weighs more than a category's."""


@dataclass(frozen=True, slots=True)
class SpreadSelector:
    """Greedy: each place takes the best row that breaks no cap within the window before it.

    Where every row left breaks one, it takes the best of those that break the least, so a page
    is never shorter than it must be. `creators_before` and `categories_before` are what the page
    before ended with, oldest first. A longer selection begins with the shorter one.
    """

    window: int = WINDOW
    max_per_creator: int = MAX_PER_CREATOR
    max_per_category: int = MAX_PER_CATEGORY
    creators_before: tuple[int, ...] = ()
    categories_before: tuple[int, ...] = ()

    def __call__(self, candidates: Candidates, limit: int) -> np.ndarray:
        """Row numbers in the order of the feed. Shapes: (min(limit, N),)."""
        creator_N, category_N = candidates.creator_N, candidates.category_N
        costs = bytearray(len(candidates))
        cost_N = np.frombuffer(costs, dtype=np.uint8)
        creators = _Cap(creator_N, self.max_per_creator, self.window, _CREATOR)
        categories = _Cap(category_N, self.max_per_category, self.window, _CATEGORY)
        for creator in self.creators_before:
            creators.add(creator, cost_N)
        for category in self.categories_before:
            categories.add(category, cost_N)
        rows: list[int] = []
        for _ in range(min(limit, len(candidates))):
            row = _first_of_the_cheapest(costs)
            rows.append(row)
            costs[row] = _TAKEN
            creators.add(creator_N.item(row), cost_N)
            categories.add(category_N.item(row), cost_N)
        return np.array(rows, dtype=np.intp)


def _first_of_the_cheapest(costs: bytearray) -> int:
    for cost in range(_CREATOR + _CATEGORY):
        if (row := costs.find(cost)) >= 0:
            return row
    return costs.find(_CREATOR + _CATEGORY)


class _Cap:
    """Keeps `cost_N` raised for the groups that are full within the last window - 1 places."""

    def __init__(self, group_N: np.ndarray, cap: int, window: int, cost: int) -> None:
        self._group_N, self._cap, self._cost = group_N, cap, cost
        self._recent: deque[int | None] = deque([None] * (window - 1))

    def add(self, group: int, cost_N: np.ndarray) -> None:
        """One more place has this group; the oldest place leaves the window."""
        recent = self._recent
        recent.append(group)
        old = recent.popleft()
        if old == group:
            return
        if recent.count(group) == self._cap:
            cost_N[self._group_N == group] += self._cost
        if old is not None and recent.count(old) == self._cap - 1:
            cost_N[self._group_N == old] -= self._cost
