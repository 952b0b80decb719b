"""Hydrator: the item table's columns beside each candidate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from feedrank_core.ranking.candidates import SOURCES, Candidates, ItemTable, Retrieved


@dataclass(frozen=True, slots=True)
class ItemHydrator:
    """Gathers from the item table. Raises: IndexError for an index beyond it."""

    items: ItemTable

    def __call__(self, retrieved: Retrieved) -> Candidates:
        """One row per retrieved item, in the same order."""
        index_N = retrieved.index_N.astype(np.intp)
        score_N = retrieved.score_N.astype(np.float32, copy=False)
        return Candidates(
            self.items,
            index_N=index_N,
            key_N=self.items.key_I.take(index_N),
            source_N=np.full(len(index_N), SOURCES.index(retrieved.source), dtype=np.int8),
            score_N=score_N,
            value_N=score_N,
        )
