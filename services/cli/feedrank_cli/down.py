"""`feedrank down`: leaves no process behind."""

from __future__ import annotations

from rich.console import Console

from feedrank_cli.settings import load
from feedrank_cli.supervision import Supervisor


def down() -> None:
    """Stop every process that `feedrank up` started for this home.

    Also those left by a supervisor that was killed. Data stays.

    For example:
        feedrank down

        FEEDRANK_HOME=/tmp/other feedrank down
    """
    ended = Supervisor(load()).stop()
    console = Console(soft_wrap=True)
    console.print(f"Stopped {len(ended)} processes." if ended else "Nothing was running.")
