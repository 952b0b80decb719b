"""`feedrank logs`: what the services said."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from feedrank_cli.errors import CommandError
from feedrank_cli.invocation import invocation
from feedrank_cli.settings import load


def logs(
    service: Annotated[
        str | None, typer.Argument(help="A service; all of them if left out.")
    ] = None,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="Last lines of each.")] = 20,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Keep printing.")] = False,
) -> None:
    """Print the last lines of the services' logs.

    For example:
        feedrank logs

        feedrank logs gateway --lines 100 --follow
    """
    folder = load().place.logs
    found = sorted(folder.glob("*.log"))
    wanted = [path for path in found if service in (None, path.stem)]
    if not wanted:
        known = ", ".join(path.stem for path in found) or "none yet"
        raise CommandError(
            f"There is no log of {service or 'any service'} in {folder}. Known: {known}.",
            f"Start the services with: {invocation()} up",
        )
    for path in wanted:
        for line in path.read_text(errors="replace").splitlines()[-lines:]:
            typer.echo(f"{path.stem}  {line}")
    if follow:
        _follow(wanted)


def _follow(paths: list[Path]) -> None:
    files = [(path.stem, path.open(errors="replace")) for path in paths]
    for _, file in files:
        file.seek(0, 2)
    while True:
        for name, file in files:
            for line in file.readlines():
                typer.echo(f"{name}  {line}", nl=False)
        time.sleep(0.3)
