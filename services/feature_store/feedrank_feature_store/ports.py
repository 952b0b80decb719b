"""What the stream needs of the world: a place where a reader's features are read online."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol


class OnlineStoreError(RuntimeError):
    """The online store did not take a write; it may hold part of it."""


@dataclass(frozen=True)
class OnlineRow:
    """A reader's newest values by column; `profile` is None where it did not change."""

    user_id: str
    counters: dict[str, Any] | None
    history: dict[str, Any] | None
    profile: dict[str, Any] | None


class OnlineFeatures(Protocol):
    """Holds each reader's newest features by view. Blocks."""

    def write(self, rows: Sequence[OnlineRow], at: datetime) -> None:
        """Replace what is held of these readers, as of `at`. Raises: OnlineStoreError."""
        ...

    def forget(self, user_ids: Sequence[str]) -> None:
        """Hold nothing of these readers any more. Raises: OnlineStoreError."""
        ...
