"""The online store in memory, for tests."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from feedrank_feature_store.ports import OnlineRow


class MemoryOnline:
    """Holds features by reader and column."""

    def __init__(self) -> None:
        self.held: dict[str, dict[str, Any]] = {}

    def write(self, rows: Sequence[OnlineRow], at: datetime) -> None:
        """Replace what is held of these readers, as of `at`."""
        for row in rows:
            held = self.held.setdefault(row.user_id, {})
            for values in (row.counters, row.history, row.profile):
                held |= values or {}

    def forget(self, user_ids: Sequence[str]) -> None:
        """Hold nothing of these readers any more."""
        for user_id in user_ids:
            self.held.pop(user_id, None)

    def read(self, user_id: str) -> dict[str, Any]:
        """Every feature of a reader by column; nothing for one that is not held."""
        return self.held.get(user_id, {})
