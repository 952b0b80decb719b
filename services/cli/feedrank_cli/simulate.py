"""`feedrank simulate`: the simulator's own commands, told where this machine listens."""

from __future__ import annotations

import os

from feedrank_simulator.__main__ import app as simulate

from feedrank_cli.settings import load


@simulate.callback()
def place() -> None:
    """Make a world: events in bulk, or the readers of the running services.

    For example:

        feedrank simulate bulk --out world --users 1000 --items 2000 --days 14

        feedrank simulate live --world world --readers 50
    """
    os.environ.update(load().environment())
