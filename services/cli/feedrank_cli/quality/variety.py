"""Beyond accuracy: what the rankings of all readers together show of the catalogue."""

from __future__ import annotations

import numpy as np
from feedrank_core.evaluation import beyond_accuracy
from feedrank_core.models.two_tower import TwoTower
from feedrank_core.ranking.mmr_selector import unit_rows
from feedrank_trainer.batching import ItemInputs
from feedrank_trainer.comparison import NUM_PAIRS, Measured
from feedrank_trainer.vectors import item_vectors
from scipy import sparse

from feedrank_cli.bench.report import Report
from feedrank_cli.quality.task import Outcome, Task

BY_TAGS, BY_VECTORS = "diversity_by_tags", "diversity_by_vectors"
Space = np.ndarray | sparse.csr_matrix
"""Items as vectors of length 1, or of 0 where nothing is known. Shapes: (N, D)."""


def tell(
    report: Report, task: Task, outcomes: list[Outcome], floors: Measured, *, prefix: str
) -> None:
    """Add each measure of the places that the watched metric looks at, beside popularity's.

    Both are compared in the same space, for every seed in the vectors of its own towers.
    """
    length = int(task.watched.split("_at_")[1])
    ours, theirs = [], []
    for outcome in outcomes:
        spaces = spaces_of(task, outcome.model)
        for found, measured in ((ours, outcome.measured), (theirs, floors)):
            top_BK = measured.top_BK[:, :length]
            found.append(measures(top_BK, task, spaces, seed=report.seed))
    for name in ours[0]:
        report.figure(f"{prefix}{name}", float(np.mean([one[name] for one in ours])))
        floor = float(np.mean([one[name] for one in theirs]))
        report.floor(f"{prefix}popularity_{name}", floor)


def measures(
    top_BK: np.ndarray, task: Task, spaces: dict[str, Space], *, seed: int
) -> dict[str, float]:
    """Every measure of these rankings; those that nobody has a part in are left out."""
    holdout = task.final.holdout
    counts_N = holdout.counts_N
    found = {
        "coverage": beyond_accuracy.coverage(top_BK, len(counts_N)),
        "novelty_bits": beyond_accuracy.novelty(top_BK, counts_N),
        "user_overlap": beyond_accuracy.overlap(top_BK, num_pairs=NUM_PAIRS, seed=seed),
        "popularity_lift_doublings": beyond_accuracy.popularity_lift(top_BK, holdout.own, counts_N),
    }
    found |= {name: beyond_accuracy.diversity(top_BK, space) for name, space in spaces.items()}
    return {name: value for name, value in found.items() if np.isfinite(value)}


def spaces_of(task: Task, model: TwoTower) -> dict[str, Space]:
    """Where items can be near each other: their tags, which no model moves, and the towers'."""
    items = task.final.items
    spaces: dict[str, Space] = {BY_TAGS: tag_rows(items)} if items["tags"].any() else {}
    return spaces | {BY_VECTORS: unit_rows(item_vectors(model, items))}


def tag_rows(items: ItemInputs) -> sparse.csr_matrix:
    """Each item's tags as a row of length 1, so that the cosine of two is their shared part."""
    rows, places = np.nonzero(items["tags"])
    columns = items["tags"][rows, places]
    shape = (len(items["tags"]), int(items["tags"].max()) + 1)
    tags = sparse.csr_matrix((np.ones(len(rows)), (rows, columns)), shape=shape)
    tags.data[:] = 1  # of two tags in one bucket, and of one listed twice
    count = np.maximum(np.diff(tags.indptr), 1)
    return sparse.csr_matrix(sparse.diags(1 / np.sqrt(count)) @ tags)
