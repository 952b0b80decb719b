"""`feedrank simulate`: the simulator's own commands, told where this machine listens."""

from __future__ import annotations

import os

from feedrank_simulator.__main__ import app as simulate

from feedrank_cli.settings import load


@simulate.callback()
def place() -> None:
    """Tell the simulator where this machine listens."""
    os.environ.update(load().environment())
