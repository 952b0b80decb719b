"""What is engaged with now, by segment of readers and for everyone: the busiest items of each.

An engaged action counts one and halves every HALF_LIFE_S. Only the busiest KEPT items of a
segment are held, so an item that enters late enters from nothing; a list of 500 does not feel it.
"""

from __future__ import annotations

import struct

import lmdb
import numpy as np

from feedrank_feature_store.stream import rows

HALF_LIFE_S = 6 * 3_600.0
"""Between the hour of a burst and the day of a reader's habit. Our own choice."""
KEPT = 1_000
FULL = 2 * KEPT
"""Items of a segment at which it is cut back to KEPT."""
FORGOTTEN = 1e-3
"""A score that says nothing any more: one action of 60 hours ago."""
_AT = struct.Struct("<d")


class Trending:
    """Scores by segment. A score of w at time t stands as w * 2^((t - landmark) / half-life)."""

    def __init__(self, db: rows.Database, reader: lmdb.Transaction) -> None:
        self._db = db
        self._scores: dict[str, dict[int, float]] = {}
        self._landmark_s: dict[str, float] = {}
        self._changed: set[str] = set()
        self._unlisted: set[str] = set()
        for key, packed in rows.every(reader, db):
            self._load(key.decode(), packed)

    def add(self, segment: str, item_key: int, at_s: float) -> None:
        """One more engaged action of a reader of this segment."""
        scores = self._scores.setdefault(segment, {})
        landmark_s = self._landmark_s.setdefault(segment, at_s)
        lives = (at_s - landmark_s) / HALF_LIFE_S
        if lives > 500:
            self._renew(segment, at_s)
            lives = 0.0
        scores = self._scores[segment]
        scores[item_key] = scores.get(item_key, 0.0) + 2.0**lives
        self._changed.add(segment)
        if len(scores) > FULL:
            self._renew(segment, at_s)

    def lists(self, *, everything: bool = False) -> dict[str, list[int]]:
        """The item keys of each segment that changed since the last call, best first."""
        segments = list(self._scores) if everything else [*self._unlisted, *self._changed]
        self._unlisted.clear()
        found = {}
        for segment in segments:
            scores = self._scores[segment]
            found[segment] = sorted(scores, key=lambda key: (-scores[key], key))
        return found

    def save(self, writer: lmdb.Transaction, now_s: float) -> None:
        """Write the segments that changed."""
        for segment in self._changed:
            self._renew(segment, max(now_s, self._landmark_s[segment]))
            scores = self._scores[segment]
            keys = np.fromiter(scores, np.int64, len(scores))
            values = np.fromiter(scores.values(), np.float64, len(scores))
            packed = _AT.pack(self._landmark_s[segment]) + keys.tobytes() + values.tobytes()
            writer.put(segment.encode(), packed, db=self._db)

    def saved(self) -> None:
        """The save has been committed."""
        self._unlisted |= self._changed
        self._changed.clear()

    def _renew(self, segment: str, landmark_s: float) -> None:
        """Count from this landmark on, and let go of what no longer matters."""
        factor = 2.0 ** ((self._landmark_s[segment] - landmark_s) / HALF_LIFE_S)
        scores = {key: score * factor for key, score in self._scores[segment].items()}
        busiest = sorted(scores, key=lambda key: (-scores[key], key))[:KEPT]
        self._scores[segment] = {k: scores[k] for k in busiest if scores[k] >= FORGOTTEN}
        self._landmark_s[segment] = landmark_s

    def _load(self, segment: str, packed: bytes) -> None:
        [self._landmark_s[segment]] = _AT.unpack_from(packed)
        num = (len(packed) - _AT.size) // 16
        keys = np.frombuffer(packed, np.int64, num, offset=_AT.size)
        values = np.frombuffer(packed, np.float64, num, offset=_AT.size + 8 * num)
        self._scores[segment] = dict(zip(keys.tolist(), values.tolist(), strict=True))
        self._unlisted.add(segment)
