"""Says on the bus how far a store is with an order."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from types import TracebackType
from typing import Self

from feedrank_core.contracts.topics import CHANGE_REPORTS
from feedrank_core.contracts.user_changes import ChangeReport, Store, StoreState, UserChange
from feedrank_core.runtime.bus import Bus, Outgoing


class Reporter:
    """Publishes reports; a context manager that closes its publisher. For use from one thread."""

    def __init__(self, bus: Bus) -> None:
        self._publisher = bus.publisher()

    def publish(self, reports: Sequence[ChangeReport]) -> None:
        """Return when the bus holds them. Raises: BusUnavailableError."""
        if reports:
            self._publisher.publish(CHANGE_REPORTS, [_outgoing(report) for report in reports])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._publisher.close()


def report_on(
    change: UserChange,
    subject: str,
    store: Store,
    state: StoreState,
    *,
    now: datetime,
    expires_at: datetime | None = None,
    removed: int = 0,
) -> ChangeReport:
    """A store's report on an order."""
    return ChangeReport(
        change_id=change.change_id,
        kind=change.kind,
        subject=subject,
        accepted_at=change.accepted_at,
        store=store,
        state=state,
        reported_at=now,
        expires_at=expires_at,
        removed=removed,
    )


def _outgoing(report: ChangeReport) -> Outgoing:
    key = f"{report.change_id}/{report.store.value}"
    return Outgoing(key, report.model_dump_json().encode())
