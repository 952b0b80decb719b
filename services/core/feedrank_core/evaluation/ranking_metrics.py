"""Metrics of one user's ranking: NDCG@k, recall@k, AUC over the full catalogue.

Rankings are dense item indices, best first, without the items to be left out; relevance is binary.
"""

from __future__ import annotations

import numpy as np


def ndcg_at_k(ranked_K: np.ndarray, relevant: np.ndarray, k: int) -> float:
    """Discounted gain of the first k places over the best that is possible.

    Raises: ValueError when nothing is relevant.
    Source: Järvelin and Kekäläinen 2002, binary gain, discount 1 / log2(rank + 1).
    """
    if len(relevant) == 0:
        raise ValueError("relevant: at least one item is needed")
    discount = 1.0 / np.log2(np.arange(2, k + 2))
    hits = np.isin(ranked_K[:k], relevant)
    best = discount[: min(k, len(relevant))].sum()
    return float(discount[: len(hits)][hits].sum() / best)


def recall_at_k(ranked_K: np.ndarray, relevant: np.ndarray, k: int) -> float:
    """Share of the relevant items that stand in the first k places.

    Raises: ValueError when nothing is relevant.
    """
    if len(relevant) == 0:
        raise ValueError("relevant: at least one item is needed")
    return float(np.isin(ranked_K[:k], relevant).sum() / len(relevant))


def auc(score_N: np.ndarray, relevant: np.ndarray, left_out: np.ndarray) -> float:
    """Probability that a relevant item scores above another of the catalogue; ties count half.

    Items in `left_out` (those known from training) take no part. NaN when there is no other item.
    """
    takes_part_N = np.ones(len(score_N), dtype=bool)
    takes_part_N[left_out] = False
    takes_part_N[relevant] = True
    is_relevant_N = np.zeros(len(score_N), dtype=bool)
    is_relevant_N[relevant] = True
    return pooled_auc(score_N[takes_part_N], is_relevant_N[takes_part_N])


def pooled_auc(score_R: np.ndarray, is_positive_R: np.ndarray) -> float:
    """Probability that a positive row scores above another one; ties count half.

    NaN when all are alike. Source: Mann-Whitney U by mid-ranks.
    """
    num_positive = int(is_positive_R.sum())
    num_other = len(is_positive_R) - num_positive
    if num_positive == 0 or num_other == 0:
        return float("nan")
    _, inverse, counts = np.unique(score_R, return_inverse=True, return_counts=True)
    mid_rank = np.cumsum(counts) - (counts - 1) / 2
    u = mid_rank[inverse][is_positive_R].sum() - num_positive * (num_positive + 1) / 2
    return float(u / (num_positive * num_other))


def top_k(score_N: np.ndarray, left_out: np.ndarray, k: int) -> np.ndarray:
    """Indices of the k best, best first, without `left_out`. Equal scores keep index order."""
    score_N = score_N.astype(np.float64, copy=True)
    score_N[left_out] = -np.inf
    k = min(k, len(score_N) - len(np.unique(left_out)))
    if k <= 0:
        return np.empty(0, np.int64)
    # Only those that reach the k-th best are sorted: a sort of the catalogue costs far more.
    least = np.partition(score_N, len(score_N) - k)[len(score_N) - k]
    reached = np.flatnonzero(score_N >= least)
    return reached[np.argsort(-score_N[reached], kind="stable")[:k]]
