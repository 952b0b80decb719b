"""`feedrank status`: one look at every process."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console

from feedrank_cli.readiness import READY, survey, table
from feedrank_cli.roster import READY_PATH, roster
from feedrank_cli.settings import load
from feedrank_cli.supervision import Supervisor


def status(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Show each process and whether it can do its work; exit 1 when one cannot.

    Before the first `feedrank daily` that is the gateway: it has nothing to feed from.

    For example:
        feedrank status

        feedrank status --json
    """
    settings = load()
    rows = survey(Supervisor(settings), roster(settings), READY_PATH)
    if as_json:
        fields = ("service", "port", "process", "state")
        typer.echo(
            json.dumps([dict(zip(fields, (p.name, p.port, s, r), strict=True)) for p, s, r in rows])
        )
    else:
        Console(soft_wrap=True).print(table(rows))
    if any(ready != READY for _, _, ready in rows):
        raise typer.Exit(1)
