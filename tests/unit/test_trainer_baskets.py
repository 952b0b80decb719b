"""What readers without an order of actions are asked."""

import numpy as np
from feedrank_trainer.baskets import Baskets

LENGTH = 4


def examples_of(baskets: dict[int, list[int]], *, seed: int = 0) -> dict[str, np.ndarray]:
    user = np.repeat([*baskets], [len(items) for items in baskets.values()])
    item = np.concatenate([np.array(items, np.int64) for items in baskets.values()])
    [piece] = Baskets.of(user, item, length=LENGTH).pieces(np.random.default_rng(seed))
    return piece


def test_each_is_asked_for_what_it_shows():
    examples = examples_of({7: [1, 2, 3], 9: [4, 5]})
    asked = dict(zip(examples["user"].tolist(), examples["positive"], strict=True))
    assert {user: {*row[row >= 0].tolist()} for user, row in asked.items()} == {
        7: {1, 2, 3},
        9: {4, 5},
    }
    assert (examples["positive"] == examples["history"]).all()


def test_of_a_long_one_each_pass_shows_another_part():
    shown = [examples_of({7: [*range(20)]}, seed=seed)["history"] for seed in range(3)]
    assert all((row >= 0).sum() == LENGTH for row in shown)
    assert len({tuple(sorted(row[0].tolist())) for row in shown}) == 3


def test_a_single_item_asks_nothing():
    assert examples_of({7: [1], 9: [4, 5]})["user"].tolist() == [9]
