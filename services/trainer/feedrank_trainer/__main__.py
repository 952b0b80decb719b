"""`python -m feedrank_trainer`: examples, towers, bundle and how good it is."""

from __future__ import annotations

import json
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from feedrank_core.runtime.metrics import Metrics
from feedrank_core.runtime.probes import probes

from feedrank_trainer.settings import Settings

app = typer.Typer(help=__doc__, no_args_is_help=True, pretty_exceptions_enable=False)

Run = Annotated[Path, typer.Option("--run", help="Folder of the daily run.")]
AsOf = Annotated[str, typer.Option(help="RFC 3339 instant; only what was accepted by then counts.")]


@app.command()
def pairs(as_of: AsOf, run: Run) -> None:
    """Write the examples: each positive, and what was known of its reader strictly before it."""
    from feedrank_trainer.app import make_pairs
    from feedrank_trainer.catalogue import CatalogueError

    moment = datetime.fromisoformat(as_of)
    if moment.tzinfo is None:
        raise typer.BadParameter(f"{as_of!r} has no time zone; add Z", param_hint="--as-of")
    settings, metrics = Settings.at_start(), Metrics("trainer")
    try:
        with probes(metrics, lambda: None, settings.host, settings.port):
            count = make_pairs(settings, run, moment.astimezone(UTC), metrics)
    except CatalogueError as error:
        typer.echo(f"feedrank_trainer: {error}", err=True)
        raise typer.Exit(1) from error
    typer.echo(json.dumps({"pairs": count}))


@app.command()
def train(
    as_of: AsOf, run: Run, seed: int = 0, epochs: Annotated[int | None, typer.Option(min=1)] = None
) -> None:
    """Train the towers and seal a bundle; its id is the last line of stdout.

    A try that was killed is taken up where it was. Several processes train together under
    `python -m torch.distributed.run --nproc-per-node N -m -- feedrank_trainer train`.
    """
    from feedrank_trainer.app import make_bundle
    from feedrank_trainer.checkpoint import CheckpointError
    from feedrank_trainer.ranks import joined
    from feedrank_trainer.run import RunError
    from feedrank_trainer.training import DeviceError

    datetime.fromisoformat(as_of)
    settings, metrics = Settings.at_start(), Metrics("trainer")
    try:
        with ExitStack() as stack:
            ranks = stack.enter_context(joined())
            if ranks.is_first:
                stack.enter_context(probes(metrics, lambda: None, settings.host, settings.port))
            bundle = make_bundle(settings, run, metrics, seed=seed, epochs=epochs, ranks=ranks)
    except (RunError, CheckpointError, DeviceError) as error:
        typer.echo(f"feedrank_trainer: {error}", err=True)
        raise typer.Exit(1) from error
    if bundle is not None:
        typer.echo(json.dumps({"bundle_id": bundle.bundle_id}))


if __name__ == "__main__":
    app()
