"""A history that is read once and asked at every place tells what each example alone would."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from feedrank_core.features.encoding import FeatureSchema, History, encode_items, encode_users
from feedrank_core.models.two_tower import TwoTower
from feedrank_core.models.user_tower import Asked
from feedrank_trainer.batching import Step, assemble, log_frequencies, pooled, steps
from feedrank_trainer.configuration import TrainingConfig
from feedrank_trainer.examples import InMemory, Log, examples_of
from feedrank_trainer.ranks import Ranks
from feedrank_trainer.windows import Windows

NUM_ITEMS, NOON_S = 30, 1.7e9
CONFIG = TrainingConfig(
    history="sequence",
    history_dropout=0.0,
    dropout=0.0,
    id_dropout=0.0,
    in_batch=False,
    temperature=0.1,
    num_uniform=8,
    batch_size=32,
)


def log_of(sizes: list[int], *, apart_s: float) -> Log:
    """Readers with so many actions, two thirds of them labels, some at one instant."""
    rng = np.random.default_rng(5)
    user = np.repeat(np.arange(len(sizes)), sizes)
    steps_s = apart_s * rng.integers(0, 3, len(user))
    return Log(
        user,
        rng.integers(0, NUM_ITEMS, len(user)),
        rng.integers(2, 5, len(user)),
        NOON_S + np.concatenate([np.cumsum(s) for s in np.split(steps_s, np.cumsum(sizes)[:-1])]),
        rng.random(len(user)) < 2 / 3,
    )


@pytest.fixture(params=["attention", "sequence"])
def tower(request) -> TwoTower:
    torch.manual_seed(3)
    model = TwoTower(
        FeatureSchema(), dropout=0.0, id_dropout=0.0, history=request.param, temperature=0.1
    ).eval()
    with torch.no_grad():
        for name, parameter in model.users.named_parameters():
            if name.endswith(("of_distance", "of_time", "ages.weight", "places.weight")):
                parameter.normal_()
    return model


def test_each_place_of_a_window_is_what_its_example_alone_would_be(tower):
    examples = examples_of(log_of([1, 7, 20, 45], apart_s=3600.0))
    items = encode_items(FeatureSchema(), {"item_id": [str(n) for n in range(NUM_ITEMS)]})
    seen = 0
    for step in steps(InMemory(examples), CONFIG, np.random.default_rng(0)):
        alone = Step(step.examples, step.examples)
        made = [
            assemble(
                one,
                items,
                np.zeros(NUM_ITEMS, np.float32),
                config=CONFIG,
                rng=np.random.default_rng(1),
            )
            for one in (step, alone)
        ]
        scores = [tower(batch)[1] for batch in made]
        torch.testing.assert_close(*scores, atol=1e-4, rtol=1e-4)
        seen += len(step.examples["user"])
    assert seen == len(examples["user"])


def test_what_is_left_out_of_a_history_is_seen_from_no_place():
    torch.manual_seed(3)
    users = TwoTower(FeatureSchema(), dropout=0.0, id_dropout=0.0).eval().users
    num, length = 3, 12
    kept = torch.ones(num, length)
    kept[0, [2, 5]], kept[1, :9], kept[2, 8] = 0.0, 0.0, 0.0
    ages_s = 3600.0 * torch.arange(length, 0, -1).repeat(num, 1)
    vectors, kinds = torch.randn(num, length, 64), torch.randint(2, 5, (num, length))
    profiles = encode_users(FeatureSchema(), {}, History.empty(1), now_s=0.0)
    profile = {name: torch.from_numpy(profiles[name]) for name in ("profile", "interests", "dense")}
    # Of a whole row, of one without anything left, of one that was left out, and of nothing.
    asked = Asked(torch.tensor([0, 1, 2, 2]), torch.tensor([11, 8, 8, -1]), torch.zeros(4))
    four = {name: value.expand(4, -1) for name, value in profile.items()}
    found = users.at(asked, vectors * kept.unsqueeze(2), kinds, ages_s, kept, **four)
    for n, (row, place) in enumerate(zip(asked.history, asked.place, strict=True)):
        there = kept[row, : place + 1].nonzero().flatten() if place >= 0 else torch.arange(0)
        alone = torch.zeros(1, length)
        alone[0, length - len(there) :] = 1.0
        some = [torch.zeros_like(one[:1]) for one in (vectors, kinds, ages_s)]
        for into, one in zip(some, (vectors, kinds, ages_s), strict=True):
            into[0, length - len(there) :] = one[row, there]
        expected = users(*some, alone, **profile)
        torch.testing.assert_close(found[n : n + 1], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("pool", [1, 4])
def test_every_row_is_in_one_batch_of_the_size_that_is_asked(pool):
    rng = np.random.default_rng(0)
    size = rng.integers(1, 20, 300)
    history = np.where(rng.random((300, 20)) < 0.5, 1, -1)
    config = TrainingConfig(batch_size=40, pool=pool)
    batches = list(pooled(history, size, config, rng))
    assert sorted(np.concatenate(batches)) == list(range(300))
    assert all(size[batch].sum() < 40 + 20 for batch in batches)
    assert list(pooled(history[:0], size[:0], config, rng)) == []


def test_nothing_is_corrected_where_that_is_asked():
    source = InMemory(examples_of(log_of([3], apart_s=3600.0)))
    config = TrainingConfig(log_q=False)
    assert not log_frequencies(source, NUM_ITEMS, config, Ranks()).any()


def test_every_example_is_in_one_window_and_keeps_half_of_a_long_history():
    examples = examples_of(log_of([60, 400, 3], apart_s=60.0))
    windows = Windows.of(examples)
    assert sorted(windows.rows) == list(range(len(examples["user"])))
    for window in range(len(windows.last)):
        rows, _ = windows.members(np.array([window]))
        assert len(set(examples["user"][rows])) == 1
        oldest_s = examples["at_s"][rows[-1]] - examples["history_ages_s"][rows[-1]].max()
        kept = [
            ((examples["history"][row] >= 0) & (at_s - ages >= oldest_s - 1)).sum()
            for row, at_s, ages in zip(
                rows, examples["at_s"][rows], examples["history_ages_s"][rows], strict=True
            )
        ]
        there = (examples["history"][rows] >= 0).sum(axis=1)
        assert (np.array(kept) >= np.minimum(there, 25)).all()


@pytest.mark.parametrize("apart_s", [1e-3, 1.0, 86_400.0])
def test_no_example_reads_itself_however_ages_are_rounded(apart_s):
    examples = examples_of(log_of([45, 300], apart_s=apart_s))
    for step in steps(InMemory(examples), CONFIG, np.random.default_rng(0)):
        batch = assemble(
            step,
            encode_items(FeatureSchema(), {"item_id": [str(n) for n in range(NUM_ITEMS)]}),
            np.zeros(NUM_ITEMS, np.float32),
            config=CONFIG,
            rng=np.random.default_rng(1),
        )
        assert batch.asked is not None
        asks = batch.asked.place.numpy() >= 0
        ages = batch.user_inputs["history_ages_s"].numpy()
        read_s = ages[batch.asked.history.numpy()[asks], batch.asked.place.numpy()[asks]]
        assert (read_s > batch.asked.age_s.numpy()[asks]).all()
        assert asks.mean() > 0.5


def test_a_sequence_cannot_lose_actions_that_others_have_read():
    with pytest.raises(ValueError, match="history_dropout=0"):
        TrainingConfig(history="sequence", history_dropout=0.1)


@pytest.mark.parametrize(("against", "each"), [(0, 8 / NUM_ITEMS), (16, 8 / 16)])
def test_drawn_negatives_stand_for_all_items_or_for_as_many_as_are_asked_for(against, each):
    source = InMemory(examples_of(log_of([3], apart_s=3600.0)))
    config = replace(CONFIG, against=against)
    found = log_frequencies(source, NUM_ITEMS, config, Ranks())
    np.testing.assert_allclose(found, np.log(each), rtol=1e-6)
    with pytest.raises(ValueError, match="against needs in_batch=False"):
        TrainingConfig(against=16)
