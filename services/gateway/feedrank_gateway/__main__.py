"""`python -m feedrank_gateway serve`."""

from __future__ import annotations

from typing import Annotated

import typer
from feedrank_core.runtime.serving import serve as serve_http

from feedrank_gateway.settings import Settings

app = typer.Typer(help="The feed API.", no_args_is_help=True)


@app.callback()
def main() -> None:
    """The feed API."""


@app.command()
def serve(
    workers: Annotated[int | None, typer.Option(help="Processes that share the port.")] = None,
) -> None:
    """Serve feeds until told to stop."""
    settings = Settings.at_start()
    serve_http(
        "feedrank_gateway.app:create", settings.host, settings.port, workers or settings.workers
    )


if __name__ == "__main__":
    app()
