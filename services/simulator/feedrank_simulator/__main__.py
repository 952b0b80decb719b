"""`python -m feedrank_simulator`: history in bulk, or readers of a running system."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from feedrank_core.runtime.memory import Peak, watching_peak
from feedrank_core.runtime.progress import Tick, progress

from feedrank_simulator.bulk import SESSIONS_PER_DAY, Written, write_history
from feedrank_simulator.history import TargetError
from feedrank_simulator.live import LiveError, read_rounds
from feedrank_simulator.parts import table_path
from feedrank_simulator.plan import Plan, PlanError
from feedrank_simulator.recipe import Recipe, RecipeError
from feedrank_simulator.settings import Settings

MAX_WORKERS = 8
"""A worker adds about 0.2 GB to the world that all share; see `feedrank bench simulate`."""

app = typer.Typer(
    no_args_is_help=True,
    help="A world of readers: history in bulk, or readers of the running services.",
    pretty_exceptions_enable=False,
)

Users = Annotated[int, typer.Option(min=1, help="Readers in the world.")]
Items = Annotated[int, typer.Option(min=1, help="Items by the end of the last day.")]
Days = Annotated[int, typer.Option(min=1, help="Days of history.")]
Seed = Annotated[int, typer.Option(min=0, help="The same seed gives the same world.")]
End = Annotated[
    datetime | None, typer.Option(help="End of the last day, in UTC; today at midnight if absent.")
]


@app.command()
def bulk(
    out: Annotated[Path, typer.Option(help="Folder for the Parquet files.")],
    users: Users = 1000,
    items: Items = 2000,
    days: Days = 14,
    seed: Seed = 1,
    sessions: Annotated[
        float, typer.Option(min=0.01, help="Mean sessions per reader and day.")
    ] = SESSIONS_PER_DAY,
    events: Annotated[
        int | None, typer.Option(min=1, help="About how many events; overrides --sessions.")
    ] = None,
    end: End = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help=f"Processes; one a core, up to {MAX_WORKERS}, if absent."),
    ] = None,
) -> None:
    """Write items, users, impressions, interactions and slates as Parquet, and world.json.

    A run that was stopped or killed is continued by the same command; what is done is not done
    again. The same seed gives the same files, whatever the number of workers. 1M readers, 10M
    items and 100M events take 1.4 GB of memory with two workers and 9 GB of disk.

    For example:

        feedrank simulate bulk --out history --users 1000 --items 2000 --days 14

        feedrank simulate bulk --out large --users 1000000 --items 10000000 --events 100000000
    """
    try:
        with watching_peak() as peak:
            written = _write(out, (users, items, days, seed, end), sessions, events, workers, peak)
    except OSError as error:
        _fail(f"{out}: cannot be written: {error.strerror or error}")
    except (PlanError, TargetError) as error:
        _fail(str(error))
    except BrokenProcessPool:
        _fail("a worker was killed, perhaps for want of memory; run again to continue")
    for name, rows in written.rows.items():
        typer.echo(f"{name:<13}{rows:>14,}  {table_path(out, name)}")
    typer.echo(f"peak memory of all processes: {peak.gb:.2f} GB")


@app.command()
def live(
    world: Annotated[Path, typer.Option(help="Folder that `bulk` wrote: the readers' world.")],
    gateway: Annotated[str | None, typer.Option(help="Base URL of the gateway.")] = None,
    intake: Annotated[str | None, typer.Option(help="Base URL of the intake.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Pages that each reader reads.")] = 3,
    readers: Annotated[int, typer.Option(min=1, help="How many of the readers read.")] = 50,
    limit: Annotated[int, typer.Option(min=1, max=100, help="Places on a page.")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="Seed of what the readers do.")] = 1,
) -> None:
    """Read feeds, act on them by the true probabilities, and post what was done.

    For example:

        feedrank simulate live --world history --rounds 3
    """
    settings = Settings.at_start()
    try:
        made = Recipe.read(world).world()
    except RecipeError as error:
        _fail(str(error))
    users = range(min(readers, made.num_users))
    try:
        with progress("pages", rounds * len(users)) as tick:
            report = asyncio.run(
                read_rounds(
                    made,
                    gateway_url=gateway or settings.gateway_url,
                    intake_url=intake or settings.intake_url,
                    users=users,
                    rounds=rounds,
                    limit=limit,
                    seed=seed,
                    progress=lambda done, total: tick(1),
                )
            )
    except LiveError as error:
        _fail(str(error))
    for number, reward in enumerate(report.reward_by_round(), start=1):
        typer.echo(f"round {number}: {reward:.3f} expected clicks a page")
    typer.echo(f"posted {report.posted:,} events, accepted {report.accepted:,}")
    for reason in report.rejected[:5]:
        typer.echo(f"rejected {reason}", err=True)


def _write(
    out: Path,
    sizes: tuple[int, int, int, int, datetime | None],
    sessions: float,
    events: int | None,
    workers: int | None,
    peak: Peak,
) -> Written:
    """Make the world and its history, or the rest of it, and show how it goes."""
    users, items, days, seed, end = sizes
    held = Plan.read(out)
    # A run that goes on after midnight ends its last day when it was to end at first.
    ends_at = held.world.end if held is not None and end is None else _end(end)
    recipe = Recipe(seed=seed, users=users, items=items, days=days, end=ends_at)
    with ExitStack() as stack:
        return write_history(
            recipe.world(),
            out,
            seed=seed,
            events_target=events,
            sessions_per_user_day=sessions,
            workers=workers or min(MAX_WORKERS, len(os.sched_getaffinity(0))),
            progress=_Shown(stack, peak),
        )


class _Shown:
    """Shows parts from the first call on, which alone knows how many there are."""

    def __init__(self, stack: ExitStack, peak: Peak) -> None:
        self._stack, self._peak = stack, peak
        self._tick: Tick | None = None
        self._done = 0

    def __call__(self, done: int, total: int) -> None:
        if self._tick is None:
            self._tick = self._stack.enter_context(progress("parts", total, done=done))
            self._done = done
        self._tick(done - self._done, f"{self._peak.gb:.2f} GB at most")
        self._done = done


def _end(end: datetime | None) -> datetime:
    if end is None:
        return datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return end.replace(tzinfo=UTC) if end.tzinfo is None else end.astimezone(UTC)


def _fail(message: str) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(1)


if __name__ == "__main__":
    app()
