"""`feedrank`: one file per command in this folder, registered here."""

from __future__ import annotations

import os
import sys
from typing import Any

import typer
from rich.console import Console

from feedrank_cli.audit import audit
from feedrank_cli.bench_command import bench
from feedrank_cli.daily import daily
from feedrank_cli.demo import demo
from feedrank_cli.down import down
from feedrank_cli.errors import CommandError
from feedrank_cli.evaluate import evaluate
from feedrank_cli.export_command import export
from feedrank_cli.feed import feed
from feedrank_cli.import_command import import_data
from feedrank_cli.logs import logs
from feedrank_cli.simulate import simulate
from feedrank_cli.status import status
from feedrank_cli.up import up
from feedrank_cli.user import user
from feedrank_cli.variables import unknown


class Application(typer.Typer):
    """Shows a CommandError as its message and remedy, without a traceback.

    Says first which variables of ours are misspelt: they would be left out in silence.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command line and exit."""
        console = Console(stderr=True, soft_wrap=True, highlight=False)
        for name, meant in unknown(os.environ).items():
            hint = f"did you mean {meant}?" if meant else "docs/settings.md lists what is read."
            console.print(f"Nothing reads {name}; {hint}", style="yellow", markup=False)
        try:
            return super().__call__(*args, **kwargs)
        except CommandError as error:
            console.print(str(error), style="red", markup=False)
            if error.remedy:
                console.print(error.remedy, markup=False)
            sys.exit(error.code)


app = Application(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Feedrank: events in, personal feeds out, on one machine.",
)
for command in (up, down, status, logs, demo, daily, feed, evaluate, export, bench):
    app.command()(command)
app.command("import")(import_data)
app.add_typer(audit, name="audit")
app.add_typer(simulate, name="simulate")
app.add_typer(user, name="user")

if __name__ == "__main__":
    app()
