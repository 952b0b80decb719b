"""`feedrank daily`: one day on this machine."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from feedrank_cli.day import STEPS, Day, Step, run_day
from feedrank_cli.errors import CommandError
from feedrank_cli.invocation import invocation
from feedrank_cli.settings import Settings, load
from feedrank_cli.supervision import Supervisor
from feedrank_cli.up import interrupt_on_signals

RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def daily(
    on: Annotated[
        str | None, typer.Option("--date", help="See only what was accepted by this day's end.")
    ] = None,
    run: Annotated[
        str | None, typer.Option("--run", help="Continue this run at the step that failed.")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Epochs of training; the trainer's own if left out.")
    ] = None,
) -> None:
    """Collect, build features, train, rank for everyone, publish, and compact the lake.

    Needs `feedrank up`. The first step that fails ends the run with its last lines, and says
    whether anything was published; `--run` continues where it stopped.

    For example:

        feedrank daily

        feedrank daily --date 2026-11-20

        feedrank daily --run 20261120T020000Z
    """
    interrupt_on_signals()
    settings = load()
    require_up(settings)
    day = Day(settings, _folder(settings, run), _date(on), epochs)
    show_day(day, Console(soft_wrap=True))


def show_day(day: Day, console: Console) -> None:
    """Run the day with a progress display on a terminal and a line a step elsewhere."""
    width = max(len(step.name) for step in STEPS)

    def end(step: Step, seconds: float) -> None:
        console.print(f"{step.name:<{width}}  {seconds:7.1f} s")

    if not console.is_terminal:
        run_day(day, begin=lambda step: None, end=end)
    else:
        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task("daily")
            run_day(day, begin=lambda step: progress.reset(task, description=step.name), end=end)
    console.print(f"{'total':<{width}}  {sum(day.done.values()):7.1f} s   {day.folder}")


def require_up(settings: Settings) -> None:
    """Raises: CommandError when the services of this home do not run."""
    if not Supervisor(settings).is_running():
        raise CommandError(
            f"The services of {settings.place.root} are not up.",
            f"Start them with: {invocation()} up",
        )


def new_run_id() -> str:
    """The instant the run began."""
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%S%fZ")


def _folder(settings: Settings, run: str | None) -> Path:
    if run is None:
        return settings.place.runs / new_run_id()
    folder = settings.place.runs / run
    if not RUN_ID.fullmatch(run) or not folder.is_dir():
        known = sorted(p.name for p in settings.place.runs.glob("*Z") if p.is_dir())
        raise CommandError(
            f"--run: there is no run {run!r} in {settings.place.runs}.",
            f"The last ones: {', '.join(known[-5:]) or 'none yet'}.",
            code=2,
        )
    return folder


def _date(text: str | None) -> date | None:
    if text is None:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise CommandError(
            f"--date: {text!r} is no date.", "Write it as 2026-11-20.", code=2
        ) from error
