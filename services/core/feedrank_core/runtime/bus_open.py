"""Opens the bus that a URL names: the one place where the choice of an adapter is made."""

from __future__ import annotations

from typing import Protocol
from urllib.parse import urlsplit

from feedrank_core.runtime.bus import Bus
from feedrank_core.runtime.settings import masked

KAFKA_SCHEME = "kafka"
REDIS_SCHEMES = frozenset({"redis", "rediss", "unix"})


class OpenBus(Bus, Protocol):
    """A bus and the way to let go of it."""

    def close(self) -> None:
        """Release the bus's own connections."""
        ...


def is_kafka(url: str) -> bool:
    """Whether the URL names a Kafka bus."""
    return urlsplit(url).scheme == KAFKA_SCHEME


def open_bus(url: str) -> OpenBus:
    """The bus at `redis://host:port/db` or `kafka://host:port[,host:port]/[prefix]`.

    Connects to nothing yet. Raises: ValueError naming the schemes that are known.
    """
    # Each library is imported only where its bus is used: kafka-python costs 20 MB.
    if is_kafka(url):
        from feedrank_core.runtime.bus_kafka import KafkaBus

        return KafkaBus(url)
    if urlsplit(url).scheme in REDIS_SCHEMES:
        from feedrank_core.runtime.bus_redis import RedisBus

        return RedisBus(url)
    raise ValueError(f"bus_url must start with redis:// or kafka://, not {masked(url)!r}")
