"""`python -m feedrank_simulator`: history in bulk, or readers of a running system."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress, TaskID

from feedrank_simulator.bulk import SESSIONS_PER_DAY, write_history
from feedrank_simulator.live import LiveError, read_rounds
from feedrank_simulator.recipe import Recipe, RecipeError
from feedrank_simulator.settings import Settings

app = typer.Typer(no_args_is_help=True, help=__doc__, pretty_exceptions_enable=False)

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
) -> None:
    """Write items, users, impressions, interactions and slates as Parquet, and world.json.

    For example:

        python -m feedrank_simulator bulk --out history --users 1000 --items 2000 --days 14
    """
    recipe = Recipe(seed=seed, users=users, items=items, days=days, end=_end(end))
    with _progress() as progress:
        task = progress.add_task("readers", total=None)
        try:
            recipe.write(out)
            written = write_history(
                recipe.world(),
                out,
                seed=seed,
                events_target=events,
                sessions_per_user_day=sessions,
                progress=lambda done, total: _advance(progress, task, done, total),
            )
        except OSError as error:
            typer.echo(f"{out}: cannot be written: {error.strerror or error}", err=True)
            raise typer.Exit(1) from error
    for name, rows in written.rows.items():
        typer.echo(f"{name:<13}{rows:>12,}  {out / name}.parquet")


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

        python -m feedrank_simulator live --world history --rounds 3
    """
    settings = Settings.at_start()
    try:
        made = Recipe.read(world).world()
    except RecipeError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error
    users = range(min(readers, made.num_users))
    with _progress() as progress:
        task = progress.add_task("pages", total=rounds * len(users))
        try:
            report = asyncio.run(
                read_rounds(
                    made,
                    gateway_url=gateway or settings.gateway_url,
                    intake_url=intake or settings.intake_url,
                    users=users,
                    rounds=rounds,
                    limit=limit,
                    seed=seed,
                    progress=lambda done, total: _advance(progress, task, done, total),
                )
            )
        except LiveError as error:
            typer.echo(str(error), err=True)
            raise typer.Exit(1) from error
    for number, reward in enumerate(report.reward_by_round(), start=1):
        typer.echo(f"round {number}: {reward:.3f} expected clicks a page")
    typer.echo(f"posted {report.posted:,} events, accepted {report.accepted:,}")
    for reason in report.rejected[:5]:
        typer.echo(f"rejected {reason}", err=True)


def _end(end: datetime | None) -> datetime:
    if end is None:
        return datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return end.replace(tzinfo=UTC) if end.tzinfo is None else end.astimezone(UTC)


def _progress() -> Progress:
    """A bar on a terminal; elsewhere nothing, since the result is printed in the end."""
    console = Console(stderr=True)
    return Progress(console=console, transient=True, disable=not console.is_terminal)


def _advance(progress: Progress, task: TaskID, done: int, total: int) -> None:
    progress.update(task, completed=done, total=total)


if __name__ == "__main__":
    app()
