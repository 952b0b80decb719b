"""Examples of one reader in one window: its history is read once and asked at every place."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from feedrank_trainer.examples import ABSENT, Examples


@dataclass(frozen=True)
class Windows:
    """The examples of a piece, each in one window whose history is that of its last example.

    Shapes: rows (N,) int64, the examples window by window and in time; starts (W + 1,) int64 into
    `rows`.
    """

    rows: np.ndarray
    starts: np.ndarray

    @classmethod
    def of(cls, examples: Examples) -> Windows:
        """Windows that leave every example half of its history at least.

        Readers of no more than a history have one window.
        """
        at_s = examples["at_s"]
        rows = np.lexsort((at_s, examples["user"]))
        user, at_s = examples["user"][rows], at_s[rows]
        is_whole = examples["history"][rows, 0] == ABSENT
        middle = examples["history"].shape[1] // 2
        earliest_s = at_s - examples["history_ages_s"][rows, middle]
        firsts = np.flatnonzero(np.r_[True, user[1:] != user[:-1]])
        starts = []
        for first, stop in zip(firsts, np.r_[firsts[1:], len(rows)], strict=True):
            while stop > first:
                last = stop - 1
                start = first
                if not is_whole[last]:
                    start += np.searchsorted(at_s[first:last], earliest_s[last], side="right")
                starts.append(start)
                stop = start
        return cls(rows, np.sort(np.array([*starts, len(rows)], np.int64)))

    @property
    def last(self) -> np.ndarray:
        """The example of each window that lends it its history. Shapes: (W,) int64."""
        return self.rows[self.starts[1:] - 1]

    def members(self, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The examples of some windows, and whose each is. Shapes: (w,) to two (Q,) int64."""
        sizes = self.starts[chosen + 1] - self.starts[chosen]
        window = np.repeat(np.arange(len(chosen)), sizes)
        before = np.cumsum(sizes) - sizes
        place = np.arange(len(window)) - before[window]
        return self.rows[self.starts[chosen][window] + place], window


def newest_before(
    history_ages_s: np.ndarray, is_there: np.ndarray, age_s: np.ndarray
) -> np.ndarray:
    """The last place strictly before a time, -1 for none.

    Ages are rounded alike for an action and for the example it is the positive of: what rounds to
    the same instant is left out, so that no example reads itself.
    Shapes: (Q, L), (Q, L) bool, (Q,), all ages float32, to (Q,) int64.
    """
    is_before = is_there & (history_ages_s > age_s[:, None])
    newest = is_before.shape[1] - 1 - np.argmax(is_before[:, ::-1], axis=1)
    return np.where(is_before.any(axis=1), newest, -1)
