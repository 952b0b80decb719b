"""Source: a popular list of the bundle, for readers and moments without candidates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from feedrank_core.contracts.slates import Source
from feedrank_core.ranking.candidates import Retrieved


@dataclass(frozen=True, slots=True)
class PopularSource:
    """A list of dense indices, best first. Scores fall from 1 to 0 evenly: only order is known."""

    indices: tuple[int, ...]
    source: Source = Source.GLOBAL_POPULAR

    def __call__(self) -> Retrieved:
        """The list in its order."""
        index_N = np.asarray(self.indices, dtype=np.uint32)
        score_N = np.linspace(1.0, 0.0, num=len(index_N), endpoint=False, dtype=np.float32)
        return Retrieved(index_N, score_N, self.source)
