import numpy as np
from feedrank_trainer.examples import Log, examples_of


def test_an_action_at_the_very_instant_is_not_history():
    log = Log(
        user=np.array([1, 1, 1, 2]),
        item=np.array([10, 11, 12, 13]),
        action=np.array([2, 2, 2, 2]),
        at_s=np.array([5.0, 8.0, 8.0, 1.0]),
        is_label=np.ones(4, bool),
    )
    history = examples_of(log)["history"]
    assert [row[row >= 0].tolist() for row in history] == [[], [10], [10], []]
