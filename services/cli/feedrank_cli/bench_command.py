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
from feedrank_cli.up import BusKind, interrupt_on_signals

ALL = "all"
GIVEN_TO_ALL = {"quick", "seed"}


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
    data_format: Annotated[
        str | None, typer.Argument(metavar="[FORMAT]", help="Of the data, where it is measured.")
    ] = None,
    path: Annotated[Path | None, typer.Argument(help="The data of that format.")] = None,
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
    seeds: Annotated[int | None, typer.Option(min=1, help="Runs, each with its seed.")] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Train otherwise than the preset does."),
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw it here, as SVG.")
    ] = None,
) -> None:
    """Measure, and compare with the bound. Not every measurement knows every option.

    Exit code 0: every bound is met; 1: one is not; 2: it could not run.

    For example:

        feedrank bench --list

        feedrank bench demo --json demo.json

        feedrank bench intake --bus kafka --minutes 10

        feedrank bench quality lightgcn PATH/TO/gowalla --seeds 3

        feedrank bench quality movielens PATH/TO/ml-100k --picture curve.svg

        feedrank bench quality movielens PATH/TO/ml-100k --set history=bag --set epochs=10

        feedrank bench train --picture loss.svg

        feedrank bench all
    """
    interrupt_on_signals()
    given = {"events": events, "bus": bus, "minutes": minutes, "users": users, "seeds": seeds,
             "data_format": data_format, "path": path, "picture": picture,
             "changes": changes}  # fmt: skip
    options = {option: value for option, value in given.items() if value not in (None, [])}
    found = discover()
    console = Console(soft_wrap=True)
    if listing or name is None:
        for known, module in found.items():
            console.print(f"{known:<14} {module.HELP}", markup=False)
        return
    measured = [
        _measure(module, console, quick=quick, seed=seed, **_of(options, module))
        for module in _chosen(name, found, options)
    ]
    if json_file is not None:
        _write(json_file, [report for report, _ in measured if report], as_list=name == ALL)
    raise typer.Exit(max((code for _, code in measured), default=MET))


def _write(path: Path, reports: list[Report], *, as_list: bool) -> None:
    if as_list and reports:
        path.write_text(json.dumps([r.as_dict() for r in reports], indent=2) + "\n")
    elif reports:
        reports[0].write(path)


def _chosen(
    name: str, found: dict[str, ModuleType], options: Iterable[str]
) -> Iterable[ModuleType]:
    """The measurements of this name. Raises: CommandError for an unknown name or option."""
    if name == ALL:
        return [module for module in found.values() if not _asks_for(module) - set(options)]
    if name not in found:
        raise CommandError(
            f"There is no measurement {name!r}.",
            f"Known: {', '.join(found)}, all.",
            code=CANNOT_RUN,
        )
    _require_known(found[name], options)
    if missing := _asks_for(found[name]) - set(options):
        raise CommandError(
            f"{name} needs {_shown(min(missing))}.",
            f"It measures what it is given: `feedrank bench {name} FORMAT PATH`.",
            code=CANNOT_RUN,
        )
    return [found[name]]


def _asks_for(module: ModuleType) -> set[str]:
    """The options without which the measurement cannot run; `all` leaves it out."""
    _place, *others = inspect.signature(module.run).parameters.values()
    return {p.name for p in others if p.default is p.empty} - GIVEN_TO_ALL


def _known_to(module: ModuleType) -> set[str]:
    """The options that the measurement's `run` takes."""
    return set(inspect.signature(module.run).parameters)


def _of(options: dict[str, Any], module: ModuleType) -> dict[str, Any]:
    """Those of the options that the measurement takes."""
    return {option: value for option, value in options.items() if option in _known_to(module)}


def _require_known(module: ModuleType, options: Iterable[str]) -> None:
    """Raises: CommandError where the measurement does not take an option."""
    unknown = set(options) - _known_to(module)
    if unknown:
        raise CommandError(
            f"{module.NAME} does not know {_shown(min(unknown))}.",
            "Leave it out: `feedrank bench --list` says what is measured.",
            code=CANNOT_RUN,
        )


def _shown(option: str) -> str:
    return {"data_format": "FORMAT", "path": "PATH", "changes": "--set"}.get(option, f"--{option}")


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
