"""`feedrank audit`: whether what was computed twice came out the same."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from feedrank_cli.errors import CommandError
from feedrank_cli.invocation import invocation
from feedrank_cli.settings import load

if TYPE_CHECKING:
    from feedrank_feature_store.differences import Comparison, Difference

DIFFERS = 1
audit = typer.Typer(no_args_is_help=True)


@audit.callback()
def about() -> None:
    """Whether what was computed twice came out the same."""


@audit.command()
def skew(
    report: Annotated[
        Path | None, typer.Option(help="Write the differences here, as JSON.")
    ] = None,
    wait: Annotated[
        float, typer.Option(min=0, help="Seconds in which the lake may catch up with the state.")
    ] = 60.0,
) -> None:
    """Compare every feature of every reader and item by stream and by batch.

    Both read the same records: the lake is cut where the stream's state stands, and all counters
    are aged to one instant. Numbers may differ by a millionth.

    Exit code 0: all alike; 1: a feature differs.

    For example:

        feedrank audit skew

        feedrank audit skew --report skew.json
    """
    # The feature store imports DuckDB and Ibis, which no other command waits for.
    from feedrank_feature_store.app import AuditError, audit_skew
    from feedrank_feature_store.settings import Settings

    os.environ.update(load().environment())
    try:
        comparison = audit_skew(Settings.at_start(), wait_s=wait)
    except AuditError as error:
        raise CommandError(
            str(error), f"Start the services with: {invocation()} up", code=2
        ) from error
    console = Console(soft_wrap=True)
    if comparison.told:
        console.print(table(comparison))
    console.print(summary(comparison), markup=False)
    if report is not None:
        report.write_text(json.dumps(as_json(comparison), indent=2, default=str) + "\n")
    if comparison.differences:
        raise typer.Exit(DIFFERS)


def summary(comparison: Comparison) -> str:
    """What was compared, in one line."""
    return (
        f"{comparison.values} values of {comparison.users} readers and {comparison.items} items"
        f" as of {comparison.as_of.isoformat()}: {comparison.differences} differ"
    )


def table(comparison: Comparison) -> Table:
    """The differences that are told, a row each."""
    view = Table(title="stream and batch differ", title_justify="left")
    for heading in ("", "entity", "feature", "stream", "batch", "first event where they part"):
        view.add_column(heading)
    for difference in comparison.told:
        view.add_row(*(escape(cell) for cell in _cells(difference)))
    return view


def as_json(comparison: Comparison) -> dict[str, Any]:
    """The report: what was compared, and the differences that are told."""
    return {
        "as_of": comparison.as_of.isoformat(),
        "users": comparison.users,
        "items": comparison.items,
        "values": comparison.values,
        "num_differences": comparison.differences,
        "differences": [asdict(difference) for difference in comparison.told],
    }


def _cells(difference: Difference) -> list[str]:
    parting = difference.parting
    where = f"{parting.event_id} at {parting.at.isoformat()}: {parting.why}" if parting else ""
    values = [_short(difference.stream), _short(difference.batch)]
    return [difference.kind, difference.entity, difference.feature, *values, where]


def _short(value: Any) -> str:
    text = f"{value:.9g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
