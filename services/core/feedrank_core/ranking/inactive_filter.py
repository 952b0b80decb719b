"""Filter: withdrawn items stay out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from feedrank_core.ranking.candidates import Candidates


@dataclass(frozen=True, slots=True)
class InactiveFilter:
    """Drops rows whose item was withdrawn when the bundle was built."""

    def __call__(self, candidates: Candidates) -> np.ndarray:
        """True where the item is active."""
        return candidates.active_N
