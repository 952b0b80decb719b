"""The ranker on planted impressions whose best order is known."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from feedrank_core.contracts.bundle import EMBEDDING_DIM
from feedrank_core.contracts.slates import HEADS, Head, Source
from feedrank_core.evaluation.calibration import calibration_error, log_loss
from feedrank_core.evaluation.ranking_metrics import pooled_auc
from feedrank_core.features.encoding import FeatureSchema, encode_items
from feedrank_core.features.ranking import AFFINITIES, DENSE_COLUMNS
from feedrank_core.models.ranker import FEW_SHOWN, Ranker, ShownMean
from feedrank_trainer.examples import Log
from feedrank_trainer.onnx_export import ParityError
from feedrank_trainer.ranking.batching import assemble, shuffled
from feedrank_trainer.ranking.calibration import Calibration
from feedrank_trainer.ranking.examples import RankingExamples, examples_of
from feedrank_trainer.ranking.export import (
    CANDIDATE_INPUTS,
    SCORER_FILE,
    check_requests,
    export_ranker,
    request,
)
from feedrank_trainer.ranking.impressions import SOURCES, Impressions
from feedrank_trainer.ranking.measures import measure_head
from feedrank_trainer.ranking.training import (
    RankerConfig,
    fit_ranker,
    forward,
    logits,
    masked_loss,
    widths_of,
)

NUM_USERS, NUM_ITEMS, NUM_TASTES, PLACES, SLATES_EACH = 80, 40, 4, 5, 8
CLICK, DWELL = HEADS.index(Head.CLICK), HEADS.index(Head.DWELL)
LIKED, OTHERWISE = 0.8, 0.1
SHORT = RankerConfig(epochs=4, batch_size=32, learning_rate=5e-3)
COLUMNS = {
    "item_id": [str(n) for n in range(NUM_ITEMS)],
    "category": [f"c{n % NUM_TASTES}" for n in range(NUM_ITEMS)],
}
SCHEMA = FeatureSchema.fit(COLUMNS, {}, user_dense=DENSE_COLUMNS)


def planted(*, of_position: float = 0.0, seed: int = 0) -> RankingExamples:
    """Readers who like one category in four; a later place is clicked less by `of_position`."""
    rng = np.random.default_rng(seed)
    num_slates = NUM_USERS * SLATES_EACH
    user = np.repeat(np.arange(NUM_USERS), SLATES_EACH * PLACES)
    item = np.concatenate([rng.permutation(NUM_ITEMS) for _ in range(NUM_USERS)])
    slate = np.repeat(np.arange(num_slates), PLACES)
    position = np.tile(np.arange(PLACES), num_slates)
    served_s = 3600.0 * (slate % SLATES_EACH)
    chance = np.where(item % NUM_TASTES == user % NUM_TASTES, LIKED, OTHERWISE)
    is_clicked = rng.random(len(user)) < chance * (1 - of_position) ** position
    label_RH = np.full((len(user), len(HEADS)), np.nan, np.float32)
    label_RH[:, CLICK] = is_clicked
    label_RH[:, DWELL] = 2.0 * is_clicked
    shown = Impressions(
        user=user,
        item=item,
        slate=slate,
        position=position,
        surface=np.zeros(len(user), np.int64),
        source=np.full(len(user), SOURCES.index(Source.CACHED)),
        served_s=served_s,
        shown_after_s=np.full(len(user), 1, np.float32),
        done_after_s_RH=np.where(label_RH > 0, 60, np.nan).astype(np.float32),
        label_RH=label_RH,
    )
    log = Log(user, item, np.full(len(user), 3), served_s + 60, np.ones(len(user), bool))
    profiles = {
        "profile": np.zeros((NUM_USERS, 3), np.int64),
        "interests": np.zeros((NUM_USERS, 8), np.int64),
    }
    groups = {name: np.full(NUM_ITEMS, -1) for name in AFFINITIES}
    groups["category"] = np.arange(NUM_ITEMS) % NUM_TASTES
    return examples_of(shown, log.rows(is_clicked), groups, np.zeros(NUM_ITEMS), profiles, {})


@pytest.fixture(scope="module")
def items() -> dict[str, np.ndarray]:
    return encode_items(SCHEMA, COLUMNS)


@pytest.fixture(scope="module")
def examples() -> RankingExamples:
    return planted()


@pytest.fixture(scope="module", params=[True, False], ids=["history", "dcn"])
def fitted(request, examples, items) -> Ranker:
    torch.set_num_threads(1)
    config = replace(SHORT, attention=request.param)
    return fit_ranker(examples.between(0, 6 * 3600), items, SCHEMA, config=config, seed=1)


@pytest.fixture(scope="module")
def untrained(examples) -> Ranker:
    torch.manual_seed(0)
    return Ranker(SCHEMA, widths_of(examples)).eval()


def test_what_a_reader_likes_stands_above_the_rest_and_popularity_cannot_tell(
    fitted, examples, items
):
    later = examples.between(6 * 3600, np.inf)
    clicked = later.impressions.label(Head.CLICK) > 0
    best = pooled_auc(
        later.impressions.item % NUM_TASTES == later.impressions.user % NUM_TASTES, clicked
    )
    assert pooled_auc(logits(fitted, later, items)[:, CLICK], clicked) > 0.5 + 0.8 * (best - 0.5)
    assert pooled_auc(later.popularity_R, clicked) < 0.6


def test_a_source_that_knows_what_is_liked_is_believed(examples, items):
    shown = examples.impressions
    is_clicked_R = shown.label(Head.CLICK) > 0
    cached, fresh = SOURCES.index(Source.CACHED), SOURCES.index(Source.FRESH)
    told = replace(shown, source=np.where(is_clicked_R, cached, fresh))
    knowing = replace(examples, impressions=told)
    model = fit_ranker(knowing, items, SCHEMA, config=SHORT, seed=1)
    assert pooled_auc(logits(model, knowing, items)[:, CLICK], is_clicked_R) > 0.95


def test_the_same_seed_gives_the_same_weights(examples, items):
    config = replace(SHORT, epochs=1)
    early = examples.between(0, 3 * 3600)
    one, two = (fit_ranker(early, items, SCHEMA, config=config, seed=4) for _ in range(2))
    for ours, theirs in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_place_is_learned_apart_and_left_out_where_candidates_are_scored(items):
    examples = planted(of_position=0.4)
    model = fit_ranker(examples, items, SCHEMA, config=SHORT, seed=1)
    of_place = model.of_position.weight[:PLACES, CLICK]
    assert (of_place[:-1] > of_place[1:]).all()
    shown = examples.impressions
    moved = replace(examples, impressions=replace(shown, position=shown.position[::-1].copy()))
    assert np.array_equal(logits(model, examples, items), logits(model, moved, items))


def test_candidates_do_not_see_each_other(fitted, examples, items):
    together = request(fitted, examples, items, 37)
    with torch.no_grad():
        whole = fitted.scorer(**together)
        for place in range(PLACES):
            alone = {
                name: value[:, place : place + 1] if name in CANDIDATE_INPUTS else value
                for name, value in together.items()
            }
            assert torch.allclose(fitted.scorer(**alone)[:, 0], whole[:, place], atol=1e-5)


def test_few_items_shown_say_little_of_a_reader():
    shown = ShownMean()
    with torch.no_grad():
        shown.weights.weight.zero_()
        shown.sources.weight.zero_()
    vector_D = torch.arange(EMBEDDING_DIM, dtype=torch.float32)
    mask_BL = torch.zeros(3, 30)
    mask_BL[1, -int(FEW_SHOWN) :] = mask_BL[2, :] = 1
    nowhere_BL = torch.zeros(3, 30, dtype=torch.int64)
    found_BD = shown(vector_D.expand(3, 30, -1), nowhere_BL, 60 * torch.ones(3, 30), mask_BL)
    for found_D, share in zip(found_BD, (0, 1 / 2, 30 / (30 + FEW_SHOWN)), strict=True):
        assert torch.allclose(found_D, share * vector_D)


def test_a_head_that_is_not_known_teaches_nothing(untrained, examples, items):
    batch = assemble(examples, np.arange(8), items)
    found = forward(untrained, batch, with_position=True)
    masked_loss(found, batch.label_BPH).backward()
    gradient = untrained.scorer.towers.out.grad
    assert gradient is not None
    is_known = [head in (Head.CLICK, Head.DWELL) for head in HEADS]
    assert (gradient.abs().sum(dim=1) > 0).tolist() == is_known


def test_padding_teaches_nothing(untrained, examples, items):
    slates = np.arange(6)
    batch = assemble(examples, slates, items)
    known = np.isfinite(examples.impressions.label(Head.CLICK)).sum()
    uneven = examples.slates(np.arange(examples.num_slates) < 2)
    cut = replace(
        uneven,
        impressions=uneven.impressions.rows(np.arange(7)),
        item_dense_RF=uneven.item_dense_RF[:7],
        pair_dense_RF=uneven.pair_dense_RF[:7],
        start_S=np.array([0, 5, 7]),
    )
    padded = assemble(cut, np.arange(2), items)
    assert known == len(examples.impressions)
    assert torch.isfinite(batch.label_BPH[..., CLICK]).all()
    assert torch.isfinite(padded.label_BPH[..., CLICK]).sum() == 7


def test_an_epoch_has_every_slate_once(examples):
    batches = list(shuffled(examples, 32, np.random.default_rng(0)))
    assert sorted(np.concatenate(batches).tolist()) == list(range(examples.num_slates))


def test_a_calibrated_head_says_how_often_it_comes():
    rng = np.random.default_rng(3)
    logit_R = rng.normal(-2.0, 1.0, 40_000)
    label_RH = np.full((40_000, len(HEADS)), np.nan)
    label_RH[:, CLICK] = rng.random(40_000) < 1 / (1 + np.exp(-logit_R))
    label_RH[:, DWELL] = 3.0 + 0.5 * logit_R + rng.normal(0, 0.1, 40_000)
    twisted_RH = np.repeat((2.0 * logit_R + 1.0)[:, None], len(HEADS), axis=1)
    found = Calibration.fit(twisted_RH, label_RH)
    foretold_RH = found.foretold(twisted_RH)
    for head, h in ((Head.CLICK, CLICK), (Head.DWELL, DWELL)):
        measured = measure_head(head, foretold_RH[:, h], label_RH[:, h])
        assert measured is not None
        assert measured.error < 0.05
        assert measured.loss < 1.0
    assert found.weight_H3[HEADS.index(Head.LIKE)].tolist() == [1.0, 1.0, 0.0]
    assert measure_head(Head.LIKE, foretold_RH[:, 1], label_RH[:, 1]) is None


def test_what_is_looked_at_now_and_then_is_calibrated_at_all_rates():
    rng = np.random.default_rng(4)
    logit_R = rng.normal(-2.0, 2.0, 200_000)
    label_RH = np.full((200_000, len(HEADS)), np.nan)
    label_RH[:, CLICK] = rng.random(200_000) < 0.4 / (1 + np.exp(-logit_R))
    logit_RH = np.repeat(logit_R[:, None], len(HEADS), axis=1)
    foretold_R = Calibration.fit(logit_RH, label_RH).foretold(logit_RH)[:, CLICK]
    measured = measure_head(Head.CLICK, foretold_R, label_RH[:, CLICK])
    assert measured is not None
    assert measured.error < 0.03


def test_calibration_error_and_log_loss_by_hand():
    predicted, label = np.array([0.1, 0.1, 0.8, 0.8]), np.array([0, 0, 1, 0])
    assert calibration_error(predicted, label) == pytest.approx(0.2)
    many = np.tile(predicted, 400), np.tile(label, 400)
    assert calibration_error(*many) == pytest.approx((0.1 + 0.3) / 2)
    expected = -(2 * np.log(0.9) + np.log(0.8) + np.log(0.2)) / 4
    assert log_loss(predicted, label) == pytest.approx(expected)
    assert pooled_auc(predicted, label > 0) == pytest.approx((2 + 0.5) / 3)


def test_the_exported_scorer_answers_as_torch_for_any_number_of_candidates(
    untrained, examples, items, tmp_path
):
    few = examples.slates(np.arange(examples.num_slates) < 3)
    uneven = replace(few, start_S=np.array([0, 1, 8, 15]))
    export_ranker(untrained, tmp_path, uneven, items)
    one = request(untrained, few, items, 0)
    other = copy.deepcopy(untrained.scorer)
    with torch.no_grad():
        other.towers.bias[0] += 1.0
    with pytest.raises(ParityError, match=SCORER_FILE):
        check_requests(other, tmp_path / SCORER_FILE, [one])
