from pathlib import Path

import numpy as np
from feedrank_trainer.examples import Log, Shards, examples_of, write_shard
from feedrank_trainer.holdout import holdout_from


def log_of(*rows: tuple[int, int, float], labels: tuple[bool, ...] | None = None) -> Log:
    """A log of (reader, item, time), all of them labels where nothing else is said."""
    user, item, at_s = (np.array(column) for column in zip(*rows, strict=True))
    is_label = np.array(labels or [True] * len(rows))
    return Log(user, item, np.full(len(rows), 2), at_s.astype(float), is_label)


def test_an_action_at_the_very_instant_is_not_history():
    history = examples_of(log_of((1, 10, 5), (1, 11, 8), (1, 12, 8), (2, 13, 1)))["history"]
    assert [row[row >= 0].tolist() for row in history] == [[], [10], [10], []]


def test_nothing_of_the_later_slice_is_given_to_training(tmp_path: Path):
    paths = (tmp_path / "0.parquet", tmp_path / "1.parquet")
    for number, path in enumerate(paths):
        write_shard(path, examples_of(log_of(*((number, at_s, at_s) for at_s in range(9, 13)))))
    for start_s, stop_s, expected in ((-np.inf, 11, [9, 10]), (10, 12, [10, 11])):
        pieces = Shards(paths, start_s, stop_s).pieces(np.random.default_rng(0))
        given = sorted(pair for p in pieces for pair in zip(p["user"], p["positive"], strict=True))
        assert given == [(number, at_s) for number in (0, 1) for at_s in expected]


def test_a_holdout_tells_what_was_known_at_the_cut_from_what_came_after(tmp_path: Path):
    cut, stop = 10, 20
    paths = (tmp_path / "0.parquet", tmp_path / "1.parquet")
    first = [
        *((1, 0, 1), (1, 1, 2), (1, 2, cut), (1, 1, 11), (1, 3, stop)),
        (2, 4, 5),  # does nothing later
    ]
    second = [
        (3, 0, 12),  # new at the cut
        *((4, 0, 3), (4, 0, 15)),  # nothing that is new to them
        *((5, 4, 2), (5, 3, 11), (5, 5, 12)),  # the first two are no labels
    ]
    write_shard(paths[0], examples_of(log_of(*first)))
    labels = (True, True, True, False, False, True)
    write_shard(paths[1], examples_of(log_of(*second, labels=labels)))
    found = holdout_from(paths, 6, start_s=cut, stop_s=stop, seed=1)
    assert found is not None
    assert list(zip(found.readers["user"], found.readers["at_s"], strict=True)) == [
        (1, cut),
        (3, 12),
        (5, 12),
    ]
    assert items_of(found.relevant) == [{2}, {0}, {5}]
    assert items_of(found.seen) == [{0, 1}, set(), {3, 4}]
    assert items_of(found.own) == [{0, 1}, set(), set()]
    assert items_of(found.neighbours) == [{0, 1}, {4}, {0}]
    assert found.counts_N.tolist() == [2, 1, 0, 0, 1, 0]


def items_of(matrix) -> list[set[int]]:
    return [set(np.flatnonzero(row).tolist()) for row in matrix.toarray()]
