"""`python -m feedrank_feature_store`: extract feature tables, keep online features current."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated

import typer
from feedrank_core.runtime.logs import configure

from feedrank_feature_store.scratch import BusyError
from feedrank_feature_store.settings import Settings

app = typer.Typer(help=__doc__, no_args_is_help=True, pretty_exceptions_enable=False)

AsOf = Annotated[str, typer.Option(help="RFC 3339 instant; only what was accepted by then counts.")]


def _instant(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(
            f"{text!r} is not an RFC 3339 instant", param_hint="--as-of"
        ) from error
    if moment.tzinfo is None:
        raise typer.BadParameter(f"{text!r} has no time zone; add Z", param_hint="--as-of")
    return moment.astimezone(UTC)


@contextmanager
def _told_if_busy() -> Iterator[None]:
    """A second run ends with the reason and without a trace."""
    try:
        yield
    except BusyError as error:
        sys.exit(f"error: {error}")


@app.command()
def catalogue(as_of: AsOf) -> None:
    """Write catalogue.parquet: every item, and how it has fared."""
    from feedrank_feature_store.app import extract_catalogue

    configure("feature_store")
    with _told_if_busy():
        num_items = extract_catalogue(Settings.at_start(), _instant(as_of))
    typer.echo(json.dumps({"items": num_items}))


@app.command()
def features(
    as_of: AsOf,
    online: Annotated[
        bool, typer.Option(help="Also apply the definitions and put readers online.")
    ] = True,
) -> None:
    """Write the feature tables, apply and materialise them."""
    from feedrank_feature_store.app import extract_features

    configure("feature_store")
    with _told_if_busy():
        rows = extract_features(Settings.at_start(), _instant(as_of), online=online)
    typer.echo(json.dumps(rows))


@app.command()
def serve() -> None:
    """Fold the log into the state and show what changed until told to stop."""
    from feedrank_feature_store.app import follow

    configure("feature_store")
    follow(Settings.at_start())


if __name__ == "__main__":
    app()
