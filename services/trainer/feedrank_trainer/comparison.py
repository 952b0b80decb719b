"""Measures contenders on a holdout, a block of readers at a time, and compares them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from feedrank_core.evaluation import beyond_accuracy, ranking_metrics
from feedrank_core.evaluation.baselines import ItemKnn, Popularity, Scorer
from feedrank_core.evaluation.bootstrap import interval, paired_difference
from feedrank_core.models.two_tower import TwoTower

from feedrank_trainer.batching import ItemInputs
from feedrank_trainer.examples import select
from feedrank_trainer.holdout import Holdout
from feedrank_trainer.vectors import item_vectors, user_vectors

NDCG_K = 10
RECALL_K = 20
DAILY_METRICS = (f"ndcg_at_{NDCG_K}", f"recall_at_{RECALL_K}")
METRICS = {"ndcg": ranking_metrics.ndcg_at_k, "recall": ranking_metrics.recall_at_k}
NUM_PAIRS = 2000
MAX_SCORES = 1 << 25
"""Scores held at once: 128 MB of float32, whatever the size of the catalogue."""
MAX_BLOCK = 256

Contender = Callable[[np.ndarray], np.ndarray]
"""Scores of the catalogue for some rows of a holdout. Shapes: (b,) to (b, N)."""
Scores = dict[str, float]


@dataclass(frozen=True)
class Measured:
    """What a contender reached. Shapes: top_BK (B, largest k) padded with -1, values (B,) each."""

    top_BK: np.ndarray
    values: dict[str, np.ndarray]


def towers(holdout: Holdout, model: TwoTower, items: ItemInputs) -> Contender:
    """The two-tower as a contender."""
    vectors = item_vectors(model, items)
    return lambda rows: user_vectors(model, select(holdout.readers, rows), vectors) @ vectors.T


def baselines(holdout: Holdout) -> dict[str, Contender]:
    """What must be beaten, fitted to what came before the cut."""
    scorers = {"popularity": Popularity(holdout.counts_N), "item_knn": ItemKnn(holdout.neighbours)}
    return {name: _scored(holdout, scorer) for name, scorer in scorers.items()}


def _scored(holdout: Holdout, scorer: Scorer) -> Contender:
    return lambda rows: np.stack([scorer.scores(holdout.own[row].indices) for row in rows])


def ndcg(
    holdout: Holdout, model: TwoTower, items: ItemInputs, *, metric: str = DAILY_METRICS[0]
) -> float:
    """Mean NDCG of the towers: what early stopping watches."""
    found = measure(holdout, towers(holdout, model, items), with_auc=False, metrics=(metric,))
    return float(found.values[metric].mean())


def measure(
    holdout: Holdout,
    contender: Contender,
    *,
    with_auc: bool = True,
    metrics: Sequence[str] = DAILY_METRICS,
) -> Measured:
    """Every reader's metrics over the full catalogue, without what the reader has seen.

    A metric is `NAME_at_K`, with a name of METRICS.
    """
    num_readers, num_items = len(holdout.readers["user"]), len(holdout.counts_N)
    functions = {name: (METRICS[name.split("_")[0]], int(name.split("_")[-1])) for name in metrics}
    longest = max(k for _, k in functions.values())
    top_BK = np.full((num_readers, longest), -1)
    values = {name: np.empty(num_readers) for name in metrics}
    if with_auc:
        values["auc"] = np.empty(num_readers)
    block = int(np.clip(MAX_SCORES // num_items, 1, MAX_BLOCK))
    for start in range(0, num_readers, block):
        rows = np.arange(start, min(start + block, num_readers))
        for row, score_N in zip(rows, contender(rows), strict=True):
            relevant, seen = holdout.relevant[row].indices, holdout.seen[row].indices
            ranked = ranking_metrics.top_k(score_N, seen, longest)
            top_BK[row, : len(ranked)] = ranked
            for name, (function, k) in functions.items():
                values[name][row] = function(ranked, relevant, k)
            if with_auc:
                values["auc"][row] = ranking_metrics.auc(score_N, relevant, seen)
    return Measured(top_BK, values)


def compare(
    holdout: Holdout, contenders: Mapping[str, Contender], *, seed: int
) -> dict[str, Scores]:
    """Every contender's metrics with intervals, and the first one's lead over each other."""
    measured = {name: measure(holdout, contender) for name, contender in contenders.items()}
    found = {name: _summary(holdout, one, seed=seed) for name, one in measured.items()}
    champion, *others = measured
    for other in others:
        lead: Scores = {}
        for metric in DAILY_METRICS:
            mean, low, high = paired_difference(
                measured[champion].values[metric], measured[other].values[metric], seed=seed
            )
            lead |= {metric: mean, f"{metric}_low": low, f"{metric}_high": high}
        found[f"lead_over_{other}"] = lead
    return found


def _summary(holdout: Holdout, measured: Measured, *, seed: int) -> Scores:
    row: Scores = {}
    for metric, value_B in measured.values.items():
        mean, low, high = interval(value_B, seed=seed)
        row |= {metric: mean, f"{metric}_low": low, f"{metric}_high": high}
    shown = measured.top_BK[:, :NDCG_K]
    row["coverage"] = beyond_accuracy.coverage(shown, len(holdout.counts_N))
    row["novelty_bits"] = beyond_accuracy.novelty(shown, holdout.counts_N)
    row["user_overlap"] = beyond_accuracy.overlap(shown, num_pairs=NUM_PAIRS, seed=seed)
    return row
