"""A history that is read once and asked at every place tells what each example alone would."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from feedrank_core.features.encoding import FeatureSchema, encode_items
from feedrank_core.models.two_tower import TwoTower
from feedrank_trainer.batching import Step, assemble, log_frequencies, steps
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
