"""How a service that runs until it is told to stop hears of it."""

from __future__ import annotations

import signal
from threading import Event


def stopping_on_signals() -> Event:
    """Set by SIGTERM or SIGINT. Called from the main thread."""
    stopping = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    return stopping
