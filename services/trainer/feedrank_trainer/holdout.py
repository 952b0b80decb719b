"""The later slice: what readers engaged with after a cut, and the scores of every contender."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from feedrank_core.evaluation import beyond_accuracy, ranking_metrics
from feedrank_core.evaluation.baselines import ItemKnn, Popularity, Scorer
from feedrank_core.evaluation.bootstrap import interval, paired_difference
from feedrank_core.models.two_tower import TwoTower
from scipy import sparse

from feedrank_trainer.examples import Examples, concatenate, read_shard, select
from feedrank_trainer.training import ItemInputs, item_vectors, user_vectors

MAX_READERS = 2000
NDCG_K = 10
RECALL_K = 20
NUM_PAIRS = 2000
Scores = dict[str, float]


@dataclass(frozen=True)
class Holdout:
    """Readers at the cut. Shapes: relevant and seen (B, N) bool, earlier (U, N), own (B, N)."""

    readers: Examples
    relevant: np.ndarray
    seen: np.ndarray
    earlier: sparse.csr_matrix
    own: sparse.csr_matrix

    def top(self, scores_BN: np.ndarray) -> np.ndarray:
        """The best items that a reader has not seen, padded with -1. Shapes: (B, RECALL_K)."""
        top_BK = np.full((len(scores_BN), RECALL_K), -1)
        for row, score_N in enumerate(scores_BN):
            ranked = ranking_metrics.top_k(score_N, np.flatnonzero(self.seen[row]), RECALL_K)
            top_BK[row, : len(ranked)] = ranked
        return top_BK

    def model_scores(self, model: TwoTower, items: ItemInputs) -> np.ndarray:
        """The towers' scores. Shapes: (B, N)."""
        vectors = item_vectors(model, items)
        return user_vectors(model, self.readers, vectors) @ vectors.T

    def baseline_scores(self) -> dict[str, np.ndarray]:
        """The baselines' scores, fitted to what came before the cut."""
        scorers: dict[str, Scorer] = {
            "popularity": Popularity(self.earlier),
            "item_knn": ItemKnn(self.earlier),
        }
        own = np.split(self.own.indices, self.own.indptr[1:-1])
        return {
            name: np.stack([scorer.scores(history) for history in own])
            for name, scorer in scorers.items()
        }

    def ndcg(self, model: TwoTower, items: ItemInputs) -> float:
        """Mean NDCG of the towers: what early stopping watches."""
        top_BK = self.top(self.model_scores(model, items))
        return float(self.measured(top_BK)["ndcg_at_10"].mean())

    def measured(self, top_BK: np.ndarray) -> dict[str, np.ndarray]:
        """Both metrics of every reader. Shapes: (B,) each."""
        rows = [
            (
                ranking_metrics.ndcg_at_k(top_K, np.flatnonzero(relevant_N), NDCG_K),
                ranking_metrics.recall_at_k(top_K, np.flatnonzero(relevant_N), RECALL_K),
            )
            for top_K, relevant_N in zip(top_BK, self.relevant, strict=True)
        ]
        ndcg_B, recall_B = np.array(rows).reshape(-1, 2).T
        return {"ndcg_at_10": ndcg_B, "recall_at_20": recall_B}

    def auc(self, scores_BN: np.ndarray) -> np.ndarray:
        """AUC of every reader. Shapes: (B,)."""
        return np.array(
            [
                ranking_metrics.auc(score_N, np.flatnonzero(relevant_N), np.flatnonzero(seen_N))
                for score_N, relevant_N, seen_N in zip(
                    scores_BN, self.relevant, self.seen, strict=True
                )
            ]
        )


def holdout_from(
    shards: tuple[Path, ...], num_items: int, *, start_s: float, stop_s: float, seed: int
) -> Holdout | None:
    """Up to MAX_READERS who engaged in [start_s, stop_s) with something new to them.

    None where there is nobody. A reader is described as at the first action of the slice, whose
    history lies strictly before it.
    """
    names = ("user", "at_s", "positive")
    pieces = [piece for path in shards for piece in read_shard(path, columns=names)]
    if not pieces:
        return None
    user, at_s, positive = (np.concatenate([p[n] for p in pieces]) for n in names)
    later = (at_s >= start_s) & (at_s < stop_s)
    chosen = np.unique(user[later])
    if len(chosen) > MAX_READERS:
        chosen = np.sort(np.random.default_rng(seed).choice(chosen, MAX_READERS, replace=False))
    if not len(chosen) or not (at_s < start_s).any():
        return None
    parts = [first_after(piece, chosen, start_s) for path in shards for piece in read_shard(path)]
    readers = concatenate(parts)
    readers = select(readers, np.argsort(readers["user"], kind="stable"))
    _, first = np.unique(readers["user"], return_index=True)
    readers = select(readers, first)
    return assemble_holdout(readers, chosen, user, at_s, positive, later, start_s, num_items)


def assemble_holdout(
    readers: Examples,
    chosen: np.ndarray,
    user: np.ndarray,
    at_s: np.ndarray,
    positive: np.ndarray,
    later: np.ndarray,
    start_s: float,
    num_items: int,
) -> Holdout:
    """The holdout of these readers; one without anything new in the slice is left out."""
    before = at_s < start_s
    everyone, row = np.unique(user, return_inverse=True)
    earlier = matrix(row[before], positive[before], (len(everyone), num_items))
    own = earlier[np.searchsorted(everyone, chosen)]
    relevant = matrix(row[later], positive[later], (len(everyone), num_items))
    relevant_BN = relevant[np.searchsorted(everyone, chosen)].toarray() > 0
    seen_BN = own.toarray() > 0
    rows, places = np.nonzero(readers["history"] >= 0)
    seen_BN[rows, readers["history"][rows, places]] = True
    relevant_BN &= ~seen_BN
    kept = np.flatnonzero(relevant_BN.any(axis=1))
    return Holdout(select(readers, kept), relevant_BN[kept], seen_BN[kept], earlier, own[kept])


def first_after(piece: Examples, chosen: np.ndarray, start_s: float) -> Examples:
    """Each chosen reader's first example of the slice; rows are in order of time."""
    rows = np.flatnonzero((piece["at_s"] >= start_s) & np.isin(piece["user"], chosen))
    _, first = np.unique(piece["user"][rows], return_index=True)
    return select(piece, rows[first])


def matrix(rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> sparse.csr_matrix:
    """A sparse matrix with a 1 for every pair met."""
    found = sparse.csr_matrix((np.ones(len(rows)), (rows, columns)), shape=shape)
    found.data[:] = 1
    return found


def compare(holdout: Holdout, contenders: dict[str, np.ndarray], *, seed: int) -> dict[str, Scores]:
    """Every contender's metrics with intervals, and the first one's lead over each other."""
    found: dict[str, Scores] = {}
    per_reader: dict[str, dict[str, np.ndarray]] = {}
    counts_N = np.asarray(holdout.earlier.sum(axis=0)).ravel()
    for name, scores_BN in contenders.items():
        top_BK = holdout.top(scores_BN)
        values = holdout.measured(top_BK) | {"auc": holdout.auc(scores_BN)}
        per_reader[name] = values
        row: Scores = {}
        for metric, value_B in values.items():
            mean, low, high = interval(value_B, seed=seed)
            row |= {metric: mean, f"{metric}_low": low, f"{metric}_high": high}
        shown = top_BK[:, :NDCG_K]
        row["coverage"] = beyond_accuracy.coverage(shown, len(counts_N))
        row["novelty_bits"] = beyond_accuracy.novelty(shown, counts_N)
        row["user_overlap"] = beyond_accuracy.overlap(shown, num_pairs=NUM_PAIRS, seed=seed)
        found[name] = row
    champion, *others = contenders
    for other in others:
        lead: Scores = {}
        for metric in ("ndcg_at_10", "recall_at_20"):
            mean, low, high = paired_difference(
                per_reader[champion][metric], per_reader[other][metric], seed=seed
            )
            lead |= {metric: mean, f"{metric}_low": low, f"{metric}_high": high}
        found[f"lead_over_{other}"] = lead
    return found
