"""Metrics against values worked out by hand."""

import itertools

import numpy as np
import pytest
from feedrank_core.evaluation import random_order
from feedrank_core.evaluation.baselines import ItemKnn, Popularity
from feedrank_core.evaluation.beyond_accuracy import coverage, novelty, overlap
from feedrank_core.evaluation.bootstrap import interval, paired_difference
from feedrank_core.evaluation.ranking_metrics import auc, ndcg_at_k, recall_at_k, top_k
from scipy import sparse


def test_ndcg_discounts_by_place():
    ranked = np.array([5, 1, 7])
    assert ndcg_at_k(ranked, np.array([5]), 3) == 1.0
    assert ndcg_at_k(ranked, np.array([1]), 3) == pytest.approx(1 / np.log2(3))
    assert ndcg_at_k(ranked, np.array([5, 7]), 3) == pytest.approx(1.5 / (1 + 1 / np.log2(3)))


def test_recall_is_over_all_relevant_items():
    assert recall_at_k(np.array([5, 1, 7]), np.array([1, 9]), 3) == 0.5


def test_nothing_relevant_is_an_error():
    with pytest.raises(ValueError, match="relevant"):
        ndcg_at_k(np.array([1]), np.array([]), 1)
    with pytest.raises(ValueError, match="relevant"):
        recall_at_k(np.array([1]), np.array([]), 1)


def test_auc_counts_pairs_and_halves_ties():
    score_N = np.array([0.9, 0.5, 0.5, 0.1])
    none = np.array([], dtype=int)
    assert auc(score_N, np.array([0]), none) == 1.0
    assert auc(score_N, np.array([1]), none) == pytest.approx((0 + 0.5 + 1) / 3)
    assert auc(score_N, np.array([1]), np.array([0, 2])) == 1.0
    assert np.isnan(auc(score_N, np.array([0]), np.array([1, 2, 3])))


def test_top_k_leaves_out_what_is_known():
    assert top_k(np.array([0.1, 0.9, 0.5]), np.array([1]), 5).tolist() == [2, 0]


@pytest.mark.parametrize(("num_candidates", "num_relevant"), [(5, 1), (5, 4), (2, 1), (3, 3)])
def test_chance_is_the_mean_over_all_orders(num_candidates, num_relevant):
    orders = [np.array(order) for order in itertools.permutations(range(num_candidates))]
    relevant = np.arange(num_relevant)
    candidates_B, relevant_B = np.array([num_candidates]), np.array([num_relevant])
    for k in (1, 3, 10):
        for name, of_one in (("ndcg_at_k", ndcg_at_k), ("recall_at_k", recall_at_k)):
            mean = np.mean([of_one(order, relevant, k) for order in orders])
            assert getattr(random_order, name)(candidates_B, relevant_B, k) == pytest.approx(mean)


def test_coverage_novelty_and_overlap():
    same = np.array([[0, 1], [0, 1], [0, 1]])
    apart = np.array([[0, 1], [2, 3]])
    assert coverage(same, 4) == 0.5
    assert coverage(np.array([[0, -1]]), 4) == 0.25
    assert overlap(same, num_pairs=20, seed=1) == 1.0
    assert overlap(apart, num_pairs=20, seed=1) == 0.0
    count_N = np.array([96, 0, 0, 0])
    assert novelty(np.array([[1]]), count_N) > novelty(np.array([[0]]), count_N)
    assert novelty(np.array([[1]]), count_N) == pytest.approx(np.log2(100))


def test_an_interval_excludes_zero_only_where_the_sign_is_certain():
    chance = np.random.default_rng(3)
    better, same = chance.normal(0.5, 1, 500), chance.normal(0.0, 1, 500)
    assert paired_difference(better, np.zeros(500), seed=1).low > 0
    unsure = interval(same, seed=1)
    assert unsure.low < 0 < unsure.high


def test_baselines_rank_what_their_data_plants():
    interactions_UN = sparse.csr_matrix(
        np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [1, 0, 0, 0]], dtype=float)
    )
    counts_N = np.asarray(interactions_UN.sum(axis=0)).ravel()
    assert Popularity(counts_N).scores(np.array([2])).tolist() == [3, 2, 1, 1]
    assert ItemKnn(interactions_UN).scores(np.array([2])).argmax() == 3
    assert ItemKnn(interactions_UN, neighbours=1).scores(np.array([0])).argmax() == 1
