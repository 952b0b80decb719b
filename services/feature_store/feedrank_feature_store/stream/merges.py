"""Who was lately merged into whom, so that what comes late is folded for whom it counts by then.

The lake does the same by its keys (`runtime.lake_keys`): a record from before a merge is the other
reader's, through as many merges as there were since.
"""

from __future__ import annotations

import lmdb
import xxhash

from feedrank_feature_store.stream import rows
from feedrank_feature_store.stream.counting import NEVER_US
from feedrank_feature_store.stream.remembered import Generations

_INSTANT_BYTES = 8


class Merges:
    """Into whom, by whom and when, for at least as long as a record may wait on the bus."""

    def __init__(self, env: lmdb.Environment) -> None:
        self.kept = Generations(env, "merges")
        self._recent: dict[bytes, bytes] = {}
        """Not yet saved, by reader and instant; b"" of what is to be removed."""
        self._latest_us = NEVER_US

    def restore(self, reader: lmdb.Transaction) -> None:
        """Take up what earlier processes left."""
        instants = [_instant_of(key) for key, _ in self._every(reader)]
        self._latest_us = max(instants, default=NEVER_US)

    def add(self, from_user: str, into_user: str, at_us: int) -> None:
        """One more; what is accepted later is not concerned."""
        self._recent[_key(from_user, at_us)] = into_user.encode()
        self._latest_us = max(self._latest_us, at_us)

    def owners(self, reader: lmdb.Transaction, user_ids: list[str], at_us: list[int]) -> list[str]:
        """Who has by now what each of these readers did then."""
        if min(at_us, default=NEVER_US) > self._latest_us:
            return user_ids
        pairs = zip(user_ids, at_us, strict=True)
        return [self._owner(reader, user_id, at) for user_id, at in pairs]

    def has_passed(self, reader: lmdb.Transaction, user_id: str, at_us: int) -> bool:
        """Whether what this reader did then went to another, though it may have come back."""
        return at_us <= self._latest_us and self._next(reader, user_id, at_us) is not None

    def forget(self, reader: lmdb.Transaction, user_id: str) -> None:
        """Name the reader no more: what was merged into them is whose it became, if anybody's.

        Looks at every merge that is kept.
        """
        own = _key(user_id, 0)[:-_INSTANT_BYTES]
        for key, into in self._every(reader):
            if into == user_id.encode():
                heir = self._owner(reader, user_id, _instant_of(key) + 1)
                self._recent[key] = b"" if heir == user_id else heir.encode()
        for key, _ in self._every(reader):
            if key.startswith(own):
                self._recent[key] = b""

    def save(self, writer: lmdb.Transaction) -> None:
        """Write what is new, remove what was forgotten."""
        for key, into in self._recent.items():
            for db in self.kept.all():
                writer.delete(key, db=db)
            if into:
                writer.put(key, into, db=self.kept.newest())

    def saved(self) -> None:
        """The save has been committed."""
        self._recent.clear()

    def _owner(self, reader: lmdb.Transaction, user_id: str, at_us: int) -> str:
        while at_us <= self._latest_us and (found := self._next(reader, user_id, at_us)):
            at_us, user_id = found[0] + 1, found[1]
        return user_id

    def _next(self, reader: lmdb.Transaction, user_id: str, at_us: int) -> tuple[int, str] | None:
        """When this reader was merged first since then, and into whom."""
        start = _key(user_id, at_us)
        own, found = start[:-_INSTANT_BYTES], {}
        for db in self.kept.all():
            for key, into in rows.after(reader, db, start):
                if not key.startswith(own):
                    break
                found[key] = into
        found |= {k: into for k, into in self._recent.items() if k >= start and k.startswith(own)}
        first = min((key for key, into in found.items() if into), default=None)
        return None if first is None else (_instant_of(first), found[first].decode())

    def _every(self, reader: lmdb.Transaction) -> list[tuple[bytes, bytes]]:
        saved = {key: into for db in self.kept.all() for key, into in rows.every(reader, db)}
        return [(key, into) for key, into in (saved | self._recent).items() if into]


def _key(user_id: str, at_us: int) -> bytes:
    """Sorts a reader's merges by their instants."""
    digest = xxhash.xxh3_128_digest(user_id.encode())
    return digest + max(at_us, 0).to_bytes(_INSTANT_BYTES, "big")


def _instant_of(key: bytes) -> int:
    return int.from_bytes(key[-_INSTANT_BYTES:], "big")
