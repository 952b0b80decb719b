"""Whose records the stream must not fold: the lake's tombstones, asked by the microsecond."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from feedrank_core.runtime.lake_changes import NOBODY, Tombstones

from feedrank_feature_store.stream.counting import NEVER_US

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Erased:
    """The tombstones as last read from the lake; nobody before that."""

    def __init__(self) -> None:
        self._tombstones = NOBODY
        self._latest_us = NEVER_US

    def take(self, tombstones: Tombstones) -> None:
        """Fold by these from now on."""
        self._tombstones = tombstones
        latest = tombstones.latest
        self._latest_us = NEVER_US if latest is None else (latest - _EPOCH) // _MICROSECOND

    def covers(self, user_id: str, at_us: int) -> bool:
        """Whether what this reader did then is to be forgotten."""
        if at_us > self._latest_us:
            return False
        return self._tombstones.covers(user_id, _EPOCH + at_us * _MICROSECOND)
