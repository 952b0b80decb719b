"""The kinds of ranking stage. Each stage is one file; `pipeline.rank` puts them together.

Stages are pure: what they need of clocks, caches or rules is given to their constructor. The
sixth kind, the SideEffect (log a slate), runs after the answer is made and lives with its I/O in
the service.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from feedrank_core.ranking.candidates import Candidates, Retrieved


class Source(Protocol):
    """Finds candidates."""

    def __call__(self) -> Retrieved:
        """Distinct items, best first."""
        ...


class Hydrator(Protocol):
    """Adds columns; never drops, adds or moves a row."""

    def __call__(self, retrieved: Retrieved) -> Candidates:
        """One row per retrieved item, in the same order."""
        ...


class Filter(Protocol):
    """Says which rows may stay. It returns a mask, so it cannot change the order."""

    def __call__(self, candidates: Candidates) -> np.ndarray:
        """Shapes: (N,) bool, True where the row stays."""
        ...


class Scorer(Protocol):
    """Changes values; never drops or moves a row."""

    def __call__(self, candidates: Candidates) -> np.ndarray:
        """Shapes: (N,) float, the new `value_N`."""
        ...


class Selector(Protocol):
    """Chooses rows and their order."""

    def __call__(self, candidates: Candidates, limit: int) -> np.ndarray:
        """Distinct row numbers; min(limit, N) of them. `candidates` come best first."""
        ...
