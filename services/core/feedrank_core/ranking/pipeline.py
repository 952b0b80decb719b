"""Filters, scorers and a selector, one after another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from feedrank_core.ranking.candidates import Candidates
from feedrank_core.ranking.stages import Filter, Scorer, Selector


def rank(
    candidates: Candidates,
    *,
    filters: Sequence[Filter],
    scorers: Sequence[Scorer],
    selector: Selector,
    limit: int,
) -> Candidates:
    """At most `limit` of the candidates, in the order to show them. Equal values keep order."""
    keep_N = np.ones(len(candidates), dtype=bool)
    for keep in filters:
        keep_N &= keep(candidates)
    left = candidates.take(np.flatnonzero(keep_N))
    for scorer in scorers:
        left = left.with_values(scorer(left))
    best_first = left.take(np.argsort(-left.value_N, kind="stable"))
    return best_first.take(selector(best_first, limit))
