"""The curve of NDCG against intra-list diversity as a knob of the re-ranking turns.

The stages are the gateway's own, on as many candidates as the batch ranker writes for a reader.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from feedrank_core.contracts.slates import Source
from feedrank_core.evaluation import beyond_accuracy
from feedrank_core.evaluation.ranking_metrics import ndcg_at_k, top_k
from feedrank_core.models.two_tower import TwoTower
from feedrank_core.ranking.candidates import Candidates, ItemTable, Retrieved
from feedrank_core.ranking.item_hydrator import ItemHydrator
from feedrank_core.ranking.mmr_selector import MmrSelector
from feedrank_core.ranking.pipeline import rank
from feedrank_core.ranking.spread_selector import WINDOW, SpreadSelector
from feedrank_core.ranking.stages import Selector
from feedrank_trainer.batching import ItemInputs
from feedrank_trainer.comparison import MAX_BLOCK, MAX_SCORES, towers
from feedrank_trainer.vectors import item_vectors

from feedrank_cli.bench.report import Report
from feedrank_cli.quality.task import Outcome, Task
from feedrank_cli.quality.variety import spaces_of

LENGTH = 10
NUM_CANDIDATES = 500
MAX_READERS = 2000
DRAW_SEED = 0
"""The same readers whatever the seed of the run, so that its seeds can be averaged."""
MMR, SPREAD = "mmr_share", "max_per_category"
SHARES = tuple(step / 10 for step in range(11))
CAPS = tuple(range(WINDOW, 0, -1))
NDCG = f"ndcg_at_{LENGTH}"

Knob = tuple[str, float]
"""A selector's argument and what it is set to."""


@dataclass(frozen=True)
class Point:
    """What the first LENGTH places reach at one setting of a knob."""

    setting: float
    ndcg: float
    diversity: float


@dataclass(frozen=True)
class Curves:
    """The points of each knob, from no re-ranking to the most of it; `space` is of `spaces_of`."""

    space: str
    points: dict[str, list[Point]]


def tell(report: Report, task: Task, outcomes: list[Outcome], *, prefix: str) -> Curves:
    """Add both measures at every setting, the mean over the seeds; answers the curves."""
    of_seeds = [measured(task, outcome.model) for outcome in outcomes]
    space = of_seeds[0][0]
    curves = Curves(space, {})
    for knob in of_seeds[0][1]:
        name, setting = knob
        ndcg, diversity = np.array([found[knob] for _, found in of_seeds]).mean(axis=0).tolist()
        curves.points.setdefault(name, []).append(Point(setting, ndcg, diversity))
        report.figure(f"{prefix}{name}_{setting:g}_{NDCG}", ndcg)
        report.figure(f"{prefix}{name}_{setting:g}_{space}", diversity)
    return curves


def measured(task: Task, model: TwoTower) -> tuple[str, dict[Knob, tuple[float, float]]]:
    """The space that diversity is of, and NDCG and diversity at every setting.

    In tags where there are any: the vectors are what MMR itself looks at.
    """
    space, unit_ND = next(iter(spaces_of(task, model).items()))
    rows = drawn(len(task.final.holdout.readers["user"]))
    selectors = selectors_of(task.final.items, model)
    shown = {knob: np.full((len(rows), LENGTH), -1) for knob in selectors}
    ndcg = {knob: np.empty(len(rows)) for knob in selectors}
    for place, (relevant, candidates) in enumerate(candidates_of(task, model, rows)):
        for knob, selector in selectors.items():
            page = rank(candidates, filters=(), scorers=(), selector=selector, limit=LENGTH)
            shown[knob][place, : len(page)] = page.index_N
            ndcg[knob][place] = ndcg_at_k(page.index_N, relevant, LENGTH)
    return space, {
        knob: (float(ndcg[knob].mean()), beyond_accuracy.diversity(shown[knob], unit_ND))
        for knob in selectors
    }


def drawn(num_readers: int) -> np.ndarray:
    """Rows of at most MAX_READERS, ascending."""
    if num_readers <= MAX_READERS:
        return np.arange(num_readers)
    rng = np.random.default_rng(DRAW_SEED)
    return np.sort(rng.choice(num_readers, MAX_READERS, replace=False))


def selectors_of(items: ItemInputs, model: TwoTower) -> dict[Knob, Selector]:
    """A selector for every setting; caps of categories only where items have some."""
    vectors = item_vectors(model, items)
    found: dict[Knob, Selector] = {(MMR, share): MmrSelector(vectors, share) for share in SHARES}
    if len(np.unique(items["categorical"][:, 1])) > 1:
        found |= {(SPREAD, cap): SpreadSelector(max_per_category=cap) for cap in CAPS}
    return found


def candidates_of(
    task: Task, model: TwoTower, rows: np.ndarray
) -> Iterator[tuple[np.ndarray, Candidates]]:
    """What each reader wants, and the towers' best candidates, as the gateway hydrates them."""
    holdout, items = task.final.holdout, task.final.items
    contender, hydrate = towers(holdout, model, items), ItemHydrator(table_of(items))
    size = int(np.clip(MAX_SCORES // len(holdout.counts_N), 1, MAX_BLOCK))
    for start in range(0, len(rows), size):
        block = rows[start : start + size]
        for row, score_N in zip(block, contender(block), strict=True):
            best = top_k(score_N, holdout.seen[row].indices, NUM_CANDIDATES)
            retrieved = Retrieved(best, score_N[best], Source.CACHED)
            yield holdout.relevant[row].indices, hydrate(retrieved)


def table_of(items: ItemInputs) -> ItemTable:
    """The catalogue as a bundle holds it; no two items are of one creator."""
    number_I = np.arange(len(items["id_weight"]))
    category_I = items["categorical"][:, 1]
    active_I = np.ones(len(number_I), bool)
    return ItemTable(number_I, number_I, category_I, np.zeros(len(number_I)), active_I)
