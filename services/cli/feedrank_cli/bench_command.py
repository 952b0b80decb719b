"""`feedrank bench`: a named measurement with the floor of the same run."""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import typer
from rich.console import Console

import feedrank_cli.bench as benches
from feedrank_cli.bench.report import CANNOT_RUN, MET, BenchCannotRun, Report
from feedrank_cli.errors import CommandError
from feedrank_cli.settings import load
from feedrank_cli.up import BusKind

ALL = "all"


def discover() -> dict[str, ModuleType]:
    """Every module of feedrank_cli.bench that measures, by its NAME."""
    found = {}
    for info in pkgutil.iter_modules(benches.__path__):
        module = importlib.import_module(f"{benches.__name__}.{info.name}")
        if hasattr(module, "NAME") and hasattr(module, "run"):
            found[module.NAME] = module
    return found


def bench(
    name: Annotated[str | None, typer.Argument(help="A measurement, or all.")] = None,
    listing: Annotated[bool, typer.Option("--list", help="What can be measured.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the report here.")] = None,
    quick: Annotated[bool, typer.Option(help="Smaller sizes; bounds still judged.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of all chance.")] = 7,
    events: Annotated[
        int | None, typer.Option(min=1, help="How many, where a measurement lets one choose.")
    ] = None,
    bus: Annotated[BusKind | None, typer.Option(help="What carries the events.")] = None,
    minutes: Annotated[float | None, typer.Option(min=0.1, help="How long the load lasts.")] = None,
    users: Annotated[int | None, typer.Option(min=1, help="Readers whose events they are.")] = None,
) -> None:
    """Measure, and compare with the bound. Not every measurement knows every option.

    Exit code 0: every bound is met; 1: one is not; 2: it could not run.

    For example:

        feedrank bench --list

        feedrank bench demo --json demo.json

        feedrank bench intake --bus kafka --minutes 10

        feedrank bench all
    """
    given = {"events": events, "bus": bus, "minutes": minutes, "users": users}
    options = {option: value for option, value in given.items() if value is not None}
    found = discover()
    console = Console(soft_wrap=True)
    if listing or name is None:
        for known, module in found.items():
            console.print(f"{known:<14} {module.HELP}", markup=False)
        return
    reports, worst = [], MET
    for module in _chosen(name, found, options):
        known = {o: value for o, value in options.items() if o in _known_to(module)}
        report, code = _measure(module, console, quick=quick, seed=seed, **known)
        worst = max(worst, code)
        reports += [report] if report else []
    if json_file is not None and reports:
        if name == ALL:
            json_file.write_text(json.dumps([r.as_dict() for r in reports], indent=2) + "\n")
        else:
            reports[0].write(json_file)
    raise typer.Exit(worst)


def _chosen(
    name: str, found: dict[str, ModuleType], options: Iterable[str]
) -> Iterable[ModuleType]:
    """The measurements of this name. Raises: CommandError for an unknown name or option."""
    if name == ALL:
        return found.values()
    if name not in found:
        raise CommandError(
            f"There is no measurement {name!r}.",
            f"Known: {', '.join(found)}, all.",
            code=CANNOT_RUN,
        )
    _require_known(found[name], options)
    return [found[name]]


def _known_to(module: ModuleType) -> set[str]:
    """The options that the measurement's `run` takes."""
    return set(inspect.signature(module.run).parameters)


def _require_known(module: ModuleType, options: Iterable[str]) -> None:
    """Raises: CommandError where the measurement does not take an option."""
    unknown = set(options) - _known_to(module)
    if unknown:
        raise CommandError(
            f"{module.NAME} does not know --{min(unknown)}.",
            "Leave it out: `feedrank bench --list` says what is measured.",
            code=CANNOT_RUN,
        )


def _measure(
    module: ModuleType, console: Console, *, quick: bool, seed: int, **options: Any
) -> tuple[Report | None, int]:
    try:
        report: Report = module.run(load().place, quick=quick, seed=seed, **options)
    except BenchCannotRun as reason:
        console.print(f"{module.NAME} could not run: {reason}", markup=False)
        return None, CANNOT_RUN
    console.print(report.table())
    return report, report.exit_code
