"""Blocks of readers give what one dense matrix gives; training stops by steps, not by a clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from feedrank_core.evaluation import ranking_metrics
from feedrank_core.features.encoding import FeatureSchema, encode_items
from feedrank_core.models.two_tower import TwoTower
from feedrank_trainer import comparison
from feedrank_trainer.comparison import baselines, compare, measure
from feedrank_trainer.configuration import TrainingConfig
from feedrank_trainer.examples import InMemory, Log, describe, examples_of
from feedrank_trainer.holdout import Holdout, binary, matrix, pairs_of
from feedrank_trainer.training import Epoch, fit
from feedrank_trainer.weights import snapshot
from scipy import sparse

NUM_READERS, NUM_ITEMS = 37, 90
CONFIG = TrainingConfig(epochs=3, batch_size=32, num_uniform=16)


def new_log(seed: int = 3) -> Log:
    rng = np.random.default_rng(seed)
    user = np.sort(rng.integers(0, NUM_READERS, 700))
    return Log(
        user,
        rng.integers(0, NUM_ITEMS, len(user)),
        np.full(len(user), 2),
        np.arange(len(user), dtype=float),
        np.ones(len(user), bool),
    )


@pytest.fixture
def holdout() -> Holdout:
    log = new_log()
    readers = np.unique(log.user)
    earlier = matrix(log.user, log.item, NUM_ITEMS)
    later = np.random.default_rng(4).integers(0, NUM_ITEMS, (len(readers), 3))
    drawn = binary(pairs_of(np.repeat(readers, 3), later.ravel(), readers, NUM_ITEMS))
    relevant = sparse.csr_matrix(drawn - drawn.multiply(earlier))
    relevant.eliminate_zeros()
    kept = np.flatnonzero(np.diff(relevant.indptr))
    return Holdout(
        describe(log, readers[kept], np.full(len(kept), 1e6)),
        relevant[kept],
        earlier[kept],
        earlier[kept],
        earlier,
        np.asarray(earlier.sum(axis=0)).ravel(),
    )


def dense(holdout: Holdout, scores_BN: np.ndarray) -> dict[str, list[float]]:
    """The metrics from whole matrices, one reader after the other."""
    found: dict[str, list[float]] = {"ndcg_at_10": [], "recall_at_20": [], "auc": []}
    for score_N, relevant_N, seen_N in zip(
        scores_BN, holdout.relevant.toarray() > 0, holdout.seen.toarray() > 0, strict=True
    ):
        relevant, seen = np.flatnonzero(relevant_N), np.flatnonzero(seen_N)
        ranked = ranking_metrics.top_k(score_N, seen, 20)
        found["ndcg_at_10"].append(ranking_metrics.ndcg_at_k(ranked, relevant, 10))
        found["recall_at_20"].append(ranking_metrics.recall_at_k(ranked, relevant, 20))
        found["auc"].append(ranking_metrics.auc(score_N, relevant, seen))
    return found


@pytest.mark.parametrize("block", [1, 5, 1000])
def test_blocks_of_readers_change_no_metric(holdout, monkeypatch, block):
    monkeypatch.setattr(comparison, "MAX_SCORES", block * NUM_ITEMS)
    num_readers = len(holdout.readers["user"])
    scores_BN = np.random.default_rng(5).normal(size=(num_readers, NUM_ITEMS))
    measured = measure(holdout, lambda rows: scores_BN[rows])
    for name, values in dense(holdout, scores_BN).items():
        np.testing.assert_allclose(measured.values[name], values, rtol=0, atol=1e-12)


def test_a_contender_that_knows_the_answers_leads_and_one_that_inverts_them_trails(holdout):
    relevant_BN = holdout.relevant.toarray()
    contenders = {"oracle": lambda rows: relevant_BN[rows], **baselines(holdout)}
    table = compare(holdout, contenders, seed=1)
    assert table["oracle"]["ndcg_at_10"] == 1.0
    assert table["oracle"]["auc"] == 1.0
    assert table["lead_over_popularity"]["ndcg_at_10_low"] > 0
    worst = measure(holdout, lambda rows: -relevant_BN[rows])
    assert worst.values["ndcg_at_10"].max() == 0.0


def trained(
    validate: Callable[[TwoTower], float] | None = None, **changes: float
) -> tuple[dict[str, torch.Tensor], list[Epoch]]:
    columns = {"item_id": [f"item-{n}" for n in range(NUM_ITEMS)]}
    schema, epochs = FeatureSchema.fit(columns, {}), []
    model = fit(
        InMemory(examples_of(new_log())),
        encode_items(schema, columns),
        schema,
        config=replace(CONFIG, **changes),
        seed=11,
        validate=validate,
        report=epochs.append,
    )
    return model.state_dict(), epochs


def test_what_is_measured_and_kept_is_the_mean_of_the_weights_after_the_epochs():
    def weights_of_epochs(averaging: float) -> list[dict[str, torch.Tensor]]:
        seen: list[dict[str, torch.Tensor]] = []

        def validate(model: TwoTower) -> float:
            seen.append(snapshot(model))
            return float(len(seen))

        kept, _ = trained(validate, averaging=averaging, epochs=3)
        assert all(torch.equal(kept[name], seen[-1][name]) for name in kept)
        return seen

    mean = (plain := weights_of_epochs(0.0))[0]
    for epoch, averaged in enumerate(weights_of_epochs(0.5)):
        mean = {name: (mean[name] + value) / 2 for name, value in plain[epoch].items()}
        torch.testing.assert_close(averaged, mean)


@pytest.mark.parametrize("averaging", [-0.1, 1.0, float("nan")])
def test_a_mean_that_no_epoch_moves_or_that_is_no_share_is_refused(averaging):
    with pytest.raises(ValueError, match="averaging must be at least 0 and below 1"):
        replace(CONFIG, averaging=averaging)


def test_the_same_seed_gives_the_same_weights():
    first, second = trained()[0], trained()[0]
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_training_stops_after_its_steps_even_within_an_epoch():
    _, whole = trained()
    per_epoch = whole[0].steps
    assert [epoch.steps for epoch in whole] == [per_epoch, 2 * per_epoch, 3 * per_epoch]
    _, cut = trained(max_steps=per_epoch + 2)
    assert [epoch.steps for epoch in cut] == [per_epoch, per_epoch + 2]


def test_training_stops_when_the_later_slice_gets_no_better_and_keeps_its_best_weights():
    scores, seen = iter([1.0, 3.0, 2.0, 2.0, 9.0]), []

    def validate(model: TwoTower) -> float:
        seen.append(snapshot(model))
        return next(scores)

    kept, epochs = trained(validate, epochs=5, patience=2)
    assert [epoch.score for epoch in epochs] == [1.0, 3.0, 2.0, 2.0]
    assert len(seen) == 4
    alike = [all(torch.equal(kept[name], state[name]) for name in kept) for state in seen]
    assert alike == [False, True, False, False]
