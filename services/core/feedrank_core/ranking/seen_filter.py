"""Filter: nothing the reader was shown or acted on before, in any session."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from feedrank_core.ranking.candidates import Candidates
from feedrank_core.ranking.membership import is_member


@dataclass(frozen=True, slots=True)
class SeenFilter:
    """Drops rows whose item key is listed. Shapes: key_M (M,) int64."""

    key_M: np.ndarray

    def __call__(self, candidates: Candidates) -> np.ndarray:
        """True where the item is not listed."""
        return ~is_member(candidates.key_N, self.key_M)
