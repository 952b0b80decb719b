"""What the gateway needs of the outside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


class CacheUnavailableError(RuntimeError):
    """The cache did not answer in time; the feed goes on without it."""


class SlatesRefusedError(RuntimeError):
    """The bus takes these slates neither now nor later."""


@dataclass(frozen=True, slots=True)
class CacheRead:
    """What the cache holds for one request; None where a key is absent."""

    candidates: bytes | None
    seen: bytes | None
    segment: bytes | None
    served: bytes | None


class Cache(Protocol):
    """The reader's keys in the cache. Reads are one round trip."""

    async def read(self, bundle_id: str, user_id: str, session_id: str | None) -> CacheRead:
        """All of it at once; `served` only with a session. Raises: CacheUnavailableError."""
        ...

    async def append_served(
        self, user_id: str, session_id: str, keys: bytes, *, is_first: bool
    ) -> None:
        """Add packed int64 item keys to what this session was served, and renew its life.

        Raises: CacheUnavailableError.
        """
        ...

    async def close(self) -> None:
        """Release connections."""
        ...


class Pointer(Protocol):
    """Says which bundle serves."""

    cache_forgot: bool
    """Whether the cache, when asked last, did not name the bundle that serves.

    It was emptied, and candidates of that bundle may be gone.
    """

    def current_id(self) -> str | None:
        """The bundle's id, or None before the first flip. Blocks: up to a short timeout."""
        ...


class SlatePublisher(Protocol):
    """Brings slates to the bus."""

    async def publish(self, slates: Sequence[tuple[str, bytes]]) -> None:
        """Return once the bus holds them all: readers and their slates as JSON.

        Raises: BusUnavailableError, after which the caller may try again; SlatesRefusedError.
        """
        ...

    async def close(self) -> None:
        """Release what it holds; what was published is already held."""
        ...
