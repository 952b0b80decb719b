"""A circuit breaker that lets exactly one caller probe."""

from __future__ import annotations

import time
from collections.abc import Callable

MAX_FAILURES = 3
COOL_DOWN_S = 0.5


class Breaker:
    """Closed until some calls in a row failed; then one call per cool-down may try.

    Own, because the libraries at hand let every waiting call through when the cool-down ends.
    For use from one event loop or thread.
    """

    def __init__(
        self,
        *,
        max_failures: int = MAX_FAILURES,
        cool_down_s: float = COOL_DOWN_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_failures, self._cool_down_s, self._clock = max_failures, cool_down_s, clock
        self._failures = 0
        self._next_probe = 0.0

    def allows(self) -> bool:
        """Whether this caller may call; saying yes while open makes it the one probe."""
        if self._failures < self._max_failures:
            return True
        now = self._clock()
        if now < self._next_probe:
            return False
        self._next_probe = now + self._cool_down_s
        return True

    def succeeded(self) -> None:
        """The call worked: closed."""
        self._failures = 0

    def failed(self) -> None:
        """The call failed: open after some in a row."""
        self._failures += 1
        self._next_probe = self._clock() + self._cool_down_s
