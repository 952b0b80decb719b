"""What a comparison of two engines found."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

RELATIVE, ABSOLUTE = 1e-6, 1e-9
"""How far two numbers may lie apart; the absolute one is for what decayed to nothing."""
TOLD = 100
"""Differences that are kept whole; the rest are counted."""
Row = dict[str, Any]


@dataclass(frozen=True)
class Parting:
    """The first event at which two engines part, and what that says of it."""

    event_id: str
    at: datetime
    why: str


@dataclass(frozen=True)
class Difference:
    """One feature of one entity on which the engines disagree. `kind`: user or item."""

    kind: str
    entity: str
    feature: str
    stream: Any
    batch: Any
    parting: Parting | None = None


@dataclass
class Comparison:
    """What was compared and what differed.

    `told` holds the first TOLD differences, `rows` all features of their entities by both engines.
    """

    as_of: datetime
    users: int = 0
    items: int = 0
    values: int = 0
    differences: int = 0
    told: list[Difference] = field(default_factory=list)
    rows: dict[tuple[str, str], tuple[Row, Row]] = field(default_factory=dict)

    def add(
        self, difference: Difference, stream: Row | None = None, batch: Row | None = None
    ) -> None:
        """Count one more difference, and keep it while there is room."""
        self.differences += 1
        if len(self.told) < TOLD:
            self.told.append(difference)
            if stream is not None and batch is not None:
                self.rows[difference.kind, difference.entity] = (stream, batch)


def equal(one: Any, other: Any) -> bool:
    """Whether two values are the same, numbers up to RELATIVE and ABSOLUTE, also within lists."""
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) <= ABSOLUTE + RELATIVE * abs(other)
    return one == other
