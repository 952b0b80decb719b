"""`python -m feedrank_gateway.slate_relay`: a worker's child that puts its slates on the bus.

In a process of its own, because a publish call costs the interpreter what readers wait for; of
lower priority, because a slate may come a moment later and a feed may not (decision 11). It reads
batches from its input, answers each with an `Outcome`, holds nothing and ends with its input.
"""

from __future__ import annotations

import os
import signal
import struct
import sys
from collections.abc import Callable, Sequence
from typing import BinaryIO

import msgspec
import structlog
from feedrank_core.contracts.topics import SLATES
from feedrank_core.runtime.bus import BusUnavailableError, Outgoing, Publisher
from feedrank_core.runtime.bus_open import open_bus
from feedrank_core.runtime.logs import configure

from feedrank_gateway.settings import Settings

NICENESS = 10
"""A tenth of a feed's claim on a busy core, so that slates slow down and never stand still."""
_FIRST_OWN = 3
"""The first descriptor after input, output and errors."""
_LENGTH = struct.Struct("!I")
LENGTH_BYTES = _LENGTH.size

log = structlog.get_logger(__name__)


class Outcome(msgspec.Struct, frozen=True):
    """What became of a batch. With a `reason` the bus does not hold it, yet or ever."""

    reason: str | None = None
    may_retry: bool = False


Slates = list[tuple[str, bytes]]
"""Reader and slate as JSON."""

_DECODE_SLATES = msgspec.msgpack.Decoder(Slates).decode
_DECODE_OUTCOME = msgspec.msgpack.Decoder(Outcome).decode


def framed(message: Sequence[tuple[str, bytes]] | Outcome) -> bytes:
    """A message as it crosses the pipe: its length in four bytes, then MessagePack."""
    body = msgspec.msgpack.encode(message)
    return _LENGTH.pack(len(body)) + body


def length_of(header: bytes) -> int:
    """How many bytes follow the LENGTH_BYTES of a header."""
    return _LENGTH.unpack(header)[0]


def outcome_of(body: bytes) -> Outcome:
    """What the relay answered."""
    return _DECODE_OUTCOME(body)


def relay(batches: BinaryIO, outcomes: BinaryIO, connect: Callable[[], Publisher]) -> None:
    """Publish batch after batch until the input ends. Blocks."""
    publisher: Publisher | None = None
    while len(header := batches.read(LENGTH_BYTES)) == LENGTH_BYTES:
        slates = _DECODE_SLATES(batches.read(length_of(header)))
        outcome = Outcome()
        try:
            publisher = publisher or connect()
            publisher.publish(SLATES, [Outgoing(user_id, slate) for user_id, slate in slates])
        except BusUnavailableError as error:
            outcome = Outcome(str(error), may_retry=True)
        except Exception as error:
            log.exception("slates_refused", num=len(slates))
            outcome = Outcome(f"{type(error).__name__}: {error}")
        outcomes.write(framed(outcome))
        outcomes.flush()
    if publisher is not None:
        publisher.close()


def main() -> None:
    """Relay until the worker closes the pipe."""
    # uvloop hands its child the port that the worker listens on: it would outlive the worker.
    os.closerange(_FIRST_OWN, os.sysconf("SC_OPEN_MAX"))
    configure("gateway")
    os.nice(NICENESS)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the worker has slates left when these come
    settings = Settings.at_start()
    relay(sys.stdin.buffer, sys.stdout.buffer, open_bus(settings.bus_url).publisher)


if __name__ == "__main__":
    main()
