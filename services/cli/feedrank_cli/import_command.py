"""`feedrank import`: data from elsewhere."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from types import ModuleType
from typing import Annotated

import typer
from rich.console import Console

import feedrank_cli.imports as formats
from feedrank_cli.daily import new_run_id
from feedrank_cli.errors import CommandError
from feedrank_cli.imports.landing import Landing
from feedrank_cli.settings import Settings, load


def discover() -> dict[str, ModuleType]:
    """Every format, by its file's name."""
    modules = {
        info.name: importlib.import_module(f"{formats.__name__}.{info.name}")
        for info in pkgutil.iter_modules(formats.__path__)
    }
    return {name: module for name, module in modules.items() if hasattr(module, "bring")}


def bring(settings: Settings, format_name: str, path: Path, console: Console) -> Landing:
    """Import and tell how it goes. Raises: CommandError for an unknown format or bad data."""
    found = discover()
    if format_name not in found:
        raise CommandError(
            f"There is no format {format_name!r}.",
            "Known:\n" + "\n".join(f"  {name:<10} {m.HELP}" for name, m in found.items()),
            code=2,
        )
    rejects = settings.place.runs / f"import-{new_run_id()}.rejects.jsonl"
    landing = Landing(settings, rejects)
    with console.status("reading") as display:
        landing.tell = lambda topic, rows: display.update(
            f"{topic}: {landing.landed[topic] + landing.known[topic]:,}"
        )
        found[format_name].bring(path, landing)
    for topic in sorted({*landing.landed, *landing.known}):
        again = landing.known[topic]
        note = f" ({again:,} were there already)" if again else ""
        console.print(f"{topic:<13} {landing.landed[topic]:>10,} new{note}")
    if landing.rejected:
        console.print(f"{landing.rejected:,} lines refused, with reasons: {rejects}")
    return landing


def import_data(
    format_name: Annotated[str, typer.Argument(metavar="FORMAT", help="movielens|jsonl|parquet")],
    path: Annotated[Path, typer.Argument(help="File or folder.")],
) -> None:
    """Bring data in: history straight to the lake, JSON lines through the intake.

    Importing the same files again adds nothing. Lines that cannot be used go to a file with
    their number and the reason; exit 1 when nothing at all came in.

    For example:

        feedrank import movielens data/ml-100k

        feedrank import parquet world/

        feedrank import jsonl events.jsonl
    """
    landing = bring(load(), format_name, path, Console(soft_wrap=True))
    if not sum(landing.landed.values()) + sum(landing.known.values()):
        raise typer.Exit(1)
