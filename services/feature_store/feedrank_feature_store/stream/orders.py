"""Erasures and merges, applied to the stream's state and to what it has shown online.

An order waits until everything that the bus held once it was read is folded: what the reader did
before it then lies in the state and nowhere else. It also waits until the lake has it: what the
stream reads there later is the other reader's by then, and by an erasure's tombstone it refuses
what may still come. An order is committed once the state is saved and the online store has
forgotten, so that a crash repeats it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock

import structlog
from feedrank_core.contracts.topics import USER_CHANGES
from feedrank_core.contracts.user_changes import ChangeKind, UserChange
from feedrank_core.runtime.bus import Bus, Consumer, Record
from feedrank_core.runtime.lake import Lake
from pydantic import ValidationError

from feedrank_feature_store.stream.erasing import erase, merge
from feedrank_feature_store.stream.inputs import FOLDED, microseconds
from feedrank_feature_store.stream.state import Place, State

log = structlog.get_logger(__name__)


@dataclass
class Order:
    """An order, its record, and where the state must stand before it is applied.

    `ends` is None until the bus has said, `looked_at` until the lake was asked: the version of its
    book by then.
    """

    record: Record
    change: UserChange | None
    ends: dict[Place, int] | None = None
    looked_at: int | None = None


class Orders:
    """Those that wait and those that are applied. `forget` makes the online store forget."""

    def __init__(
        self, bus: Bus, state: State, lock: Lock, lake: Lake, forget: Callable[[str], None]
    ) -> None:
        self._bus, self._state, self._lock, self._lake = bus, state, lock, lake
        self._forget = forget
        self._waiting: deque[Order] = deque()
        self._applied: deque[Order] = deque()
        state.erased.take(lake.tombstones())

    def take(self, records: Sequence[Record]) -> list[Record]:
        """Keep the orders among these records and give the others back."""
        orders = [record for record in records if record.topic == USER_CHANGES.name]
        self._waiting += [Order(record, change_of(record)) for record in orders]
        return [record for record in records if record.topic != USER_CHANGES.name]

    def drop(self) -> None:
        """Forget what was read and not committed: it comes again."""
        self._waiting.clear()
        self._applied.clear()

    def apply(self) -> bool:
        """Apply what may be, in order; whether any is to be finished once the state is saved.

        Raises: BusUnavailableError.
        """
        while self._waiting and self._is_due(self._waiting[0]):
            order = self._waiting.popleft()
            if order.change is not None:
                with self._lock:
                    self._apply(order.change)
            self._applied.append(order)
        return bool(self._applied)

    def finish(self, consumer: Consumer) -> None:
        """After the state is saved: forget online, then commit.

        Raises: redis.RedisError, OnlineStoreError, BusUnavailableError, LeaseLostError.
        """
        while self._applied:
            order = self._applied[0]
            if order.change is not None:
                self._forget(order.change.user_id)
            consumer.commit([order.record])
            self._applied.popleft()

    def _is_due(self, order: Order) -> bool:
        positions, change = self._state.positions, order.change
        if order.ends is None:
            order.ends = self._ends()
        if any(positions.get(place, 0) < end for place, end in order.ends.items()):
            return False
        if change is None:
            return True
        tombstones = self._lake.tombstones()
        version = self._lake.changes.version
        if order.looked_at == version:
            return False
        order.looked_at = version
        self._state.erased.take(tombstones)
        user_id, at = change.user_id, change.accepted_at
        # Of a merge too: who got the keys may have been erased since, and no row names them then.
        if tombstones.covers(user_id, at):
            return True
        is_merge = change.kind is ChangeKind.MERGE
        return is_merge and self._lake.keys.holds_nothing_of(user_id, before=at)

    def _ends(self) -> dict[Place, int]:
        return {
            (topic.name, partition): end
            for topic in FOLDED
            for partition, end in self._bus.end_offsets(topic).items()
        }

    def _apply(self, change: UserChange) -> None:
        if change.kind is ChangeKind.ERASE:
            erase(self._state, change.user_id)
        else:
            assert change.into is not None
            at_us = microseconds(change.accepted_at)
            merge(self._state, change.user_id, change.into, at_us)
        log.info("user_change_applied", kind=change.kind.value, change_id=change.change_id)


def change_of(record: Record) -> UserChange | None:
    """The order of a record; None of one that cannot be read."""
    try:
        return UserChange.model_validate_json(record.value or b"")
    except ValidationError:
        # The lake's reader of the orders puts it among the dead letters.
        return None
