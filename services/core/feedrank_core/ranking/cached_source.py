"""Source: the candidates that the batch ranker computed for this user."""

from __future__ import annotations

from dataclasses import dataclass

from feedrank_core.contracts.slates import Source
from feedrank_core.ranking.candidates import Retrieved
from feedrank_core.ranking.packed import unpack


@dataclass(frozen=True, slots=True)
class CachedSource:
    """A packed `cand:` value. Raises: ValueError when it is harmed or of another item table."""

    packed: bytes
    num_items: int

    def __call__(self) -> Retrieved:
        """The candidates in their cached order."""
        index_N, score_N = unpack(self.packed)
        if len(index_N) and int(index_N.max()) >= self.num_items:
            raise ValueError(f"candidate {int(index_N.max())} of {self.num_items} items")
        return Retrieved(index_N, score_N, Source.CACHED)
