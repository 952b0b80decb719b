"""Training examples: a positive, and what was known of its reader strictly before it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from feedrank_core.features.encoding import HISTORY_LENGTH, MAX_INTERESTS

Examples = dict[str, np.ndarray]
"""Equal-length arrays: user (N,) int64, at_s (N,) float64, positive (N,) int64 dense index, or
(N, T) of them with -1 for nothing where a reader has several at once; history (N, L) int64 dense
indices with -1 for nothing, history_actions (N, L) int64, history_ages_s (N, L) float32, profile
(N, 3), interests (N, 8) int64, dense (N, F) float32."""

ABSENT = -1


@dataclass(frozen=True)
class Log:
    """Engaged actions sorted by user and then time.

    Shapes: user (N,) int64, item (N,) int64 dense index, action (N,) int64 id, at_s (N,) float64
    Unix seconds, is_label (N,) bool: whether the action is a positive of its own.
    """

    user: np.ndarray
    item: np.ndarray
    action: np.ndarray
    at_s: np.ndarray
    is_label: np.ndarray

    def rows(self, chosen: np.ndarray) -> Log:
        """The chosen actions, in order."""
        return Log(*(getattr(self, name)[chosen] for name in self.__dataclass_fields__))


def histories_before(
    log: Log, users: np.ndarray, at_s: np.ndarray, *, length: int = HISTORY_LENGTH
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The last L actions of each reader strictly before a time: items, actions, ages.

    An action at the very instant is left out: of two in one instant neither may tell the other.
    Shapes: users (B,), at_s (B,) to three (B, L), with ABSENT, 0 and 0 for nothing.
    """
    if not len(log.user):
        shape = (len(users), length)
        return np.full(shape, ABSENT), np.zeros(shape, np.int64), np.zeros(shape, np.float32)
    distinct, start = np.unique(log.user, return_index=True)
    ends = np.append(start[1:], len(log.user))
    place = np.searchsorted(distinct, users)
    known = place < len(distinct)
    known[known] = distinct[place[known]] == users[known]
    place = np.where(known, place, 0)
    first = np.where(known, start[place], 0)
    last = np.where(known, ends[place], 0)
    stop = np.empty(len(users), np.int64)
    for row in range(len(users)):
        stop[row] = first[row] + np.searchsorted(log.at_s[first[row] : last[row]], at_s[row])
    index = stop[:, None] - length + np.arange(length)
    mask = index >= first[:, None]
    index = np.where(mask, index, 0)
    ages = np.where(mask, np.maximum(at_s[:, None] - log.at_s[index], 0), 0)
    return (
        np.where(mask, log.item[index], ABSENT),
        np.where(mask, log.action[index], 0),
        ages.astype(np.float32),
    )


def examples_of(log: Log, *, dense: np.ndarray | None = None) -> Examples:
    """An example for each label of the log, in its order; profiles are zero."""
    labels = np.flatnonzero(log.is_label)
    users, at_s = log.user[labels], log.at_s[labels]
    return describe(log, users, at_s, dense=None if dense is None else dense[labels]) | {
        "positive": log.item[labels].astype(np.int64)
    }


def describe(
    log: Log, users: np.ndarray, at_s: np.ndarray, *, dense: np.ndarray | None = None
) -> Examples:
    """What was known of each reader at a time. `positive` is absent."""
    history, actions, ages = histories_before(log, users, at_s)
    return {
        "user": users.astype(np.int64),
        "at_s": at_s.astype(np.float64),
        "history": history,
        "history_actions": actions,
        "history_ages_s": ages,
        "profile": np.zeros((len(users), 3), np.int64),
        "interests": np.zeros((len(users), MAX_INTERESTS), np.int64),
        "dense": np.zeros((len(users), 1), np.float32) if dense is None else dense,
    }


def concatenate(parts: Sequence[Examples]) -> Examples:
    """One after the other."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def select(examples: Examples, chosen: np.ndarray) -> Examples:
    """The chosen examples."""
    return {name: values[chosen] for name, values in examples.items()}


@contextmanager
def open_shard(path: Path) -> Iterator[Callable[[Examples], None]]:
    """What adds examples to a shard, at least once; the shard is there when all were added."""
    partial = path.with_suffix(".partial")
    with ExitStack() as stack:
        writer: pq.ParquetWriter | None = None

        def write(examples: Examples) -> None:
            nonlocal writer
            table = to_table(examples)
            if writer is None:
                opened = pq.ParquetWriter(partial, table.schema, compression="zstd")
                writer = stack.enter_context(opened)
            writer.write_table(table, row_group_size=1 << 15)

        yield write
    partial.replace(path)


def write_shard(path: Path, examples: Examples) -> None:
    """Write one shard."""
    with open_shard(path) as write:
        write(examples)


def to_table(examples: Examples) -> pa.Table:
    """The examples as columns; matrices become fixed-size lists."""
    columns: dict[str, pa.Array] = {}
    for name, values in examples.items():
        flat = pa.array(np.ascontiguousarray(values).ravel())
        wide = values.ndim == 2
        columns[name] = pa.FixedSizeListArray.from_arrays(flat, values.shape[1]) if wide else flat
    return pa.table(columns)


def read_shard(
    path: Path, *, rows: int = 1 << 15, columns: Sequence[str] | None = None
) -> Iterator[Examples]:
    """The shard in pieces of at most `rows`, so that memory does not grow with it."""
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(rows, columns=columns):
            yield {name: to_numpy(batch.column(name)) for name in batch.schema.names}


def to_numpy(column: pa.Array) -> np.ndarray:
    """A column as a vector, or as a matrix where it holds fixed-size lists."""
    if isinstance(column, pa.FixedSizeListArray):
        flat = column.flatten().to_numpy(zero_copy_only=False)
        return flat.reshape(len(column), column.type.list_size)
    return column.to_numpy(zero_copy_only=False)


@dataclass(frozen=True)
class InMemory:
    """Examples that fit; the twin of `Shards`."""

    examples: Examples
    is_ordered: ClassVar[bool] = True

    def pieces(self, rng: np.random.Generator) -> Iterator[Examples]:
        """The examples, shuffled."""
        yield select(self.examples, rng.permutation(len(self.examples["user"])))


@dataclass(frozen=True)
class Shards:
    """Examples on disk, read in a shuffled order of shards and shuffled within each piece.

    Only examples with `start_s <= at_s < stop_s` are given.
    """

    paths: tuple[Path, ...]
    start_s: float = -np.inf
    stop_s: float = np.inf
    is_ordered: ClassVar[bool] = True

    def pieces(self, rng: np.random.Generator) -> Iterator[Examples]:
        """Pieces that fit in memory, one after the other."""
        for number in rng.permutation(len(self.paths)):
            for piece in read_shard(self.paths[number]):
                kept = np.flatnonzero(
                    (piece["at_s"] >= self.start_s) & (piece["at_s"] < self.stop_s)
                )
                if len(kept):
                    yield select(piece, rng.permutation(kept))
