"""Readers whose actions carry no order: each is asked for what it shows.

Hiding a part and asking for that, as denoising autoencoders do, leaves less to learn from.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from feedrank_core.features.encoding import FIRST_WORD, MAX_INTERESTS

from feedrank_trainer.examples import ABSENT, Examples

PIECE_READERS = 4096


@dataclass(frozen=True)
class Baskets:
    """Examples of whole readers; a third kind of source beside `InMemory` and `Shards`.

    `length` is the most that a history holds: of a longer one a random part is shown.
    Shapes: readers (U,) int64, starts (U + 1,) int64 into items (A,) int64 dense indices.
    """

    readers: np.ndarray
    starts: np.ndarray
    items: np.ndarray
    length: int
    is_ordered: ClassVar[bool] = False

    @classmethod
    def of(cls, user: np.ndarray, item: np.ndarray, *, length: int) -> Baskets:
        """The baskets of these pairs, in any order. Shapes: (A,) each."""
        order = np.lexsort((item, user))
        readers, starts = np.unique(user[order], return_index=True)
        return cls(readers, np.append(starts, len(user)), item[order], length)

    def pieces(self, rng: np.random.Generator) -> Iterator[Examples]:
        """Shuffled readers of two items and more: of one alone there is no taste to tell.

        Of what a long basket does not show, nothing is asked.
        """
        askable = np.flatnonzero(np.diff(self.starts) > 1)
        order = rng.permutation(askable)
        for start in range(0, len(order), PIECE_READERS):
            chosen = order[start : start + PIECE_READERS]
            shown = [rng.permutation(self._of(reader)) for reader in chosen]
            examples = described(self.readers[chosen], shown, self.length)
            yield examples | {"positive": examples["history"]}

    def describe(self, users: np.ndarray, *, seed: int) -> Examples:
        """Everything known of each reader; nothing of one who is not here. Shapes: users (B,)."""
        rng = np.random.default_rng(seed)
        place = np.minimum(np.searchsorted(self.readers, users), len(self.readers) - 1)
        shown = [
            rng.permutation(self._of(reader)) if self.readers[reader] == user else self.items[:0]
            for user, reader in zip(users, place, strict=True)
        ]
        return described(users, shown, self.length)

    def _of(self, reader: int) -> np.ndarray:
        return self.items[self.starts[reader] : self.starts[reader + 1]]


def described(users: np.ndarray, shown: list[np.ndarray], length: int) -> Examples:
    """Readers by what they engaged with, all at one moment and by one action."""
    history = to_the_right(shown, length)
    return {
        "user": users.astype(np.int64),
        "at_s": np.zeros(len(users)),
        "history": history,
        "history_actions": np.where(history == ABSENT, 0, FIRST_WORD),
        "history_ages_s": np.zeros(history.shape, np.float32),
        "profile": np.zeros((len(users), 3), np.int64),
        "interests": np.zeros((len(users), MAX_INTERESTS), np.int64),
        "dense": np.zeros((len(users), 1), np.float32),
    }


def to_the_right(rows: list[np.ndarray], length: int) -> np.ndarray:
    """The last of each row, with ABSENT before them. Shapes: (B, length) int64."""
    found = np.full((len(rows), length), ABSENT, np.int64)
    for place, row in enumerate(rows):
        kept = row[-length:]
        found[place, length - len(kept) :] = kept
    return found
