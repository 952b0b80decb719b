"""The later slice: what readers engaged with after a cut, and what was known before it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy import sparse

from feedrank_trainer.examples import Examples, concatenate, read_shard, select

MAX_READERS = 2000
MAX_NEIGHBOURS = 20_000
"""Readers that item-kNN learns from: its matrix grows with the square of their histories."""

Triples = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Readers, items and Unix seconds of some pairs. Shapes: (P,) each."""


@dataclass(frozen=True)
class Holdout:
    """Readers at the cut. Nothing here grows with readers times items.

    Shapes: relevant, seen and own (B, N), neighbours (U, N) sparse, counts_N (N,) readers of each
    item before the cut.
    """

    readers: Examples
    relevant: sparse.csr_matrix
    seen: sparse.csr_matrix
    own: sparse.csr_matrix
    neighbours: sparse.csr_matrix
    counts_N: np.ndarray

    def asking_what_is_new(self) -> Holdout:
        """Without what readers have seen, and without those of whom nothing is left to ask."""
        relevant = sparse.csr_matrix(self.relevant - self.relevant.multiply(self.seen))
        relevant.eliminate_zeros()
        kept = np.flatnonzero(np.diff(relevant.indptr))
        return replace(
            self,
            readers=select(self.readers, kept),
            relevant=relevant[kept],
            seen=self.seen[kept],
            own=self.own[kept],
        )


def holdout_from(
    shards: tuple[Path, ...], num_items: int, *, start_s: float, stop_s: float, seed: int
) -> Holdout | None:
    """Up to MAX_READERS who engaged in [start_s, stop_s) with something new to them.

    None where there is nobody. A reader is described as at the first action of the slice, whose
    history lies strictly before it. The shards are streamed.
    """
    rng = np.random.default_rng(seed)
    later = _sample(_readers(shards, start_s, stop_s), MAX_READERS, rng)
    earlier = _sample(_readers(shards, -np.inf, start_s), MAX_NEIGHBOURS, rng)
    if not len(later) or not len(earlier):
        return None
    counts_N = np.zeros(num_items)
    found = {
        "own": sparse.csr_matrix((len(later), num_items)),
        "relevant": sparse.csr_matrix((len(later), num_items)),
        "neighbours": sparse.csr_matrix((len(earlier), num_items)),
    }
    for user, item, at_s in triples(shards):
        before = at_s < start_s
        counts_N += np.asarray(matrix(user[before], item[before], num_items).sum(axis=0)).ravel()
        in_slice = (at_s >= start_s) & (at_s < stop_s)
        for name, rows, readers in (
            ("own", before, later),
            ("relevant", in_slice, later),
            ("neighbours", before, earlier),
        ):
            found[name] = binary(found[name] + pairs_of(user[rows], item[rows], readers, num_items))
    described = _described(shards, later, start_s, stop_s)
    seen = binary(found["own"] + _history(described, num_items))
    asked = Holdout(described, found["relevant"], seen, found["own"], found["neighbours"], counts_N)
    return asked.asking_what_is_new()


def triples(shards: tuple[Path, ...]) -> Iterator[Triples]:
    """Reader, item and time of every pair, a shard at a time: shards never split a reader."""
    for path in shards:
        whole = concatenate(list(read_shard(path, columns=["user", "positive", "at_s"])))
        yield whole["user"], whole["positive"], whole["at_s"]


def _readers(shards: tuple[Path, ...], start_s: float, stop_s: float) -> np.ndarray:
    found = [
        np.unique(user[(at_s >= start_s) & (at_s < stop_s)]) for user, _, at_s in triples(shards)
    ]
    return np.unique(np.concatenate(found)) if found else np.empty(0, np.int64)


def _sample(readers: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    return readers if len(readers) <= most else np.sort(rng.choice(readers, most, replace=False))


def pairs_of(
    user: np.ndarray, item: np.ndarray, readers: np.ndarray, num_items: int
) -> sparse.csr_matrix:
    """The pairs of these readers, one row each. `readers` ascend."""
    place = np.minimum(np.searchsorted(readers, user), len(readers) - 1)
    chosen = readers[place] == user
    rows, columns = place[chosen], item[chosen]
    return sparse.csr_matrix((np.ones(len(rows)), (rows, columns)), shape=(len(readers), num_items))


def binary(pairs: sparse.csr_matrix) -> sparse.csr_matrix:
    """The same places, with a 1 in each."""
    found = sparse.csr_matrix(pairs)
    found.sum_duplicates()
    found.data[:] = 1
    return found


def matrix(user: np.ndarray, item: np.ndarray, num_items: int) -> sparse.csr_matrix:
    """A row a distinct reader, in ascending order, with a 1 for every item met."""
    readers = np.unique(user)
    if not len(readers):
        return sparse.csr_matrix((0, num_items))
    return binary(pairs_of(user, item, readers, num_items))


def _described(
    shards: tuple[Path, ...], readers: np.ndarray, start_s: float, stop_s: float
) -> Examples:
    """Each reader's first example of the slice, by reader."""
    parts: list[Examples] = []
    for path in shards:
        for piece in read_shard(path):
            in_slice = (piece["at_s"] >= start_s) & (piece["at_s"] < stop_s)
            parts.append(select(piece, np.flatnonzero(in_slice & np.isin(piece["user"], readers))))
    found = concatenate(parts)
    found = select(found, np.lexsort((found["at_s"], found["user"])))
    return select(found, np.unique(found["user"], return_index=True)[1])


def _history(readers: Examples, num_items: int) -> sparse.csr_matrix:
    rows, places = np.nonzero(readers["history"] >= 0)
    columns = readers["history"][rows, places]
    return sparse.csr_matrix(
        (np.ones(len(rows)), (rows, columns)), shape=(len(readers["history"]), num_items)
    )
