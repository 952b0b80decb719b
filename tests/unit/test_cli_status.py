"""What `up` and `status` say of a process that cannot work yet."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from feedrank_cli.readiness import READY, check
from feedrank_cli.roster import READY_PATH, Process
from feedrank_cli.settings import Settings
from feedrank_core.runtime.metrics import Metrics
from feedrank_core.runtime.probes import probes

REASON = "no bundle serves yet; run `feedrank daily`"


@contextmanager
def answering(reason: str | None, path: str) -> Iterator[Process]:
    """A process whose probes answer, known by the probe that `up` waits for."""
    with probes(Metrics("gateway"), lambda: reason, "127.0.0.1", 0) as port:
        yield Process("gateway", (), port, "FEEDRANK_GATEWAY_PORT", path)


def test_a_process_that_is_not_ready_is_told_in_its_own_words():
    with answering(REASON, "/readyz") as process:
        assert check(Settings(), process) == REASON
    with answering(None, "/readyz") as process:
        assert check(Settings(), process) == READY


def test_a_gateway_without_a_bundle_lets_up_end_and_is_not_ready_for_status():
    with answering(REASON, "/healthz") as process:
        assert check(Settings(), process) == READY
        assert check(Settings(), process, READY_PATH) == REASON


def test_a_process_without_words_is_told_by_its_status():
    with answering(None, "/nowhere") as process:
        assert check(Settings(), process) == "answers 404"
