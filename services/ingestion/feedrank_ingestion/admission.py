"""Bounds what unanswered requests hold in memory: who would exceed it is asked to come back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

LEAST_BYTES = 1024
"""What a request counts for at least, so that many without a body are bounded too."""


class OverCapacityError(RuntimeError):
    """Too much is being read or waits for the bus; nothing of the request was looked at."""


class Admission:
    """Room for `max_bytes` of bodies that are read, validated or wait. For one event loop.

    A request that finds nothing before it is always let in, whatever its size.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self.waiting_bytes = 0

    @contextmanager
    def room_for(self, num_bytes: int) -> Iterator[None]:
        """Hold the room until left. Raises: OverCapacityError."""
        wanted = max(num_bytes, LEAST_BYTES)
        if self.waiting_bytes and self.waiting_bytes + wanted > self._max_bytes:
            raise OverCapacityError(
                f"requests of {self.waiting_bytes} bytes are being read or wait for the bus, and"
                f" {self._max_bytes} may"
            )
        self.waiting_bytes += wanted
        try:
            yield
        finally:
            self.waiting_bytes -= wanted
