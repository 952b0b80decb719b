"""A log in pieces gives the examples of the whole, and a shard holds all of a reader."""

from collections import defaultdict

import numpy as np
import pyarrow as pa
import pytest
from feedrank_core.features.encoding import HISTORY_LENGTH
from feedrank_trainer.examples import Examples, Log, concatenate, examples_of
from feedrank_trainer.pieces import pieces

Rows = list[tuple[int, int]]
"""Reader and instant of each row, sorted."""


def batches(rows: Rows, size: int) -> list[pa.Table]:
    item = np.arange(len(rows))
    user, at = (np.array(column) for column in zip(*rows, strict=True))
    table = pa.table({"user_id": pa.array(user).cast(pa.string()), "at": at, "item": item})
    return [table.slice(start, size) for start in range(0, len(rows), size)]


def examples(table: pa.Table, num_before: int = 0) -> Examples:
    user = np.array(table["user_id"].to_pylist(), np.int64)
    item, at_s = table["item"].to_numpy(), table["at"].to_numpy().astype(float)
    return examples_of(Log(user, item, item, at_s, np.arange(len(user)) >= num_before))


def drawn(rng: np.random.Generator, sizes: list[int], ties: int) -> Rows:
    """Readers with so many rows each, some of them in one instant."""
    return [
        (1_000 + user, at)
        for user, size in enumerate(sizes)
        for at in sorted(rng.integers(0, max(1, size // ties), size).tolist())
    ]


LARGE = 5 * HISTORY_LENGTH


@pytest.mark.parametrize("size", [1, 7, HISTORY_LENGTH, 64, 10_000])
@pytest.mark.parametrize("ties", [1, 3, 2 * HISTORY_LENGTH, LARGE])
@pytest.mark.parametrize(
    "sizes", [[LARGE], [3, LARGE, 2, 64, 1], [7, 7, LARGE, LARGE], [1] * 20 + [LARGE]]
)
def test_the_pieces_give_the_examples_of_the_whole(sizes, ties, size):
    rows = drawn(np.random.default_rng(ties), sizes, ties)
    found = concatenate([examples(p.rows, p.num_before) for p in pieces(batches(rows, size))])
    whole = examples(pa.concat_tables(batches(rows, 10_000)))
    for name, expected in whole.items():
        np.testing.assert_array_equal(found[name], expected, err_msg=name)


def test_no_piece_grows_with_a_reader_and_no_shard_splits_one():
    rows = drawn(np.random.default_rng(0), [5, 20 * LARGE, 5, 5], 2)
    shards = defaultdict(set)
    for piece in pieces(batches(rows, 64)):
        assert piece.rows.num_rows <= 2 * (64 + HISTORY_LENGTH)
        shards[piece.shard] |= set(piece.rows["user_id"].to_pylist())
    readers = [user for users in shards.values() for user in users]
    assert len(readers) == len(set(readers)) == 4
    assert list(shards) == list(range(len(shards)))


def test_nothing_is_made_of_nothing():
    empty = batches([(1, 1)], 1)[0].slice(1)
    assert not list(pieces([])) and not list(pieces([empty, empty]))
