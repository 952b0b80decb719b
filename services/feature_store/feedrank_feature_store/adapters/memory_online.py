"""The online store in memory, for tests."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from feedrank_feature_store.ports import OnlineRow


class MemoryOnline:
    """Holds features by reader and view, with when they were written."""

    def __init__(self) -> None:
        self.held: dict[str, dict[str, tuple[datetime, dict[str, Any]]]] = {}

    def write(self, rows: Sequence[OnlineRow], at: datetime) -> None:
        """Replace what is held, unless it was written after `at`."""
        for row in rows:
            views = self.held.setdefault(row.user_id, {})
            for name in ("counters", "history", "profile"):
                values = getattr(row, name)
                if values is not None and (name not in views or views[name][0] < at):
                    views[name] = (at, values)

    def forget(self, user_ids: Sequence[str]) -> None:
        """Hold nothing of these readers any more."""
        for user_id in user_ids:
            self.held.pop(user_id, None)

    def read(self, user_id: str) -> dict[str, Any]:
        """Every feature of a reader by column; nothing for one that is not held."""
        views = self.held.get(user_id, {})
        return {name: value for _, values in views.values() for name, value in values.items()}
