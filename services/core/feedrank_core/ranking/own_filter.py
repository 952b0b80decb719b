"""Filter: nobody is recommended what they published themselves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from feedrank_core.ranking.candidates import Candidates


@dataclass(frozen=True, slots=True)
class OwnFilter:
    """Drops the rows of one creator: the reader, who has an index among the bundle's creators."""

    creator: int

    def __call__(self, candidates: Candidates) -> np.ndarray:
        """True where somebody else is the creator."""
        return candidates.creator_N != self.creator
