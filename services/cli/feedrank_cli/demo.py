"""`feedrank demo`: a world, a day, two feeds, a few likes, another day."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from feedrank_cli.daily import new_run_id, show_day
from feedrank_cli.day import Day
from feedrank_cli.errors import CommandError
from feedrank_cli.import_command import bring_in, show
from feedrank_cli.invocation import invocation
from feedrank_cli.settings import Settings, load
from feedrank_cli.show import (
    MAX_COMMON,
    MIN_RISE,
    common_share,
    like,
    look,
    rare_items,
    rise,
    side_by_side,
    two_readers,
)
from feedrank_cli.supervision import Supervisor
from feedrank_cli.up import addresses, interrupt_on_signals, start

EPOCHS = 10
"""At most: a pass over so small a world is seven steps, and the trainer stops by itself. A real day
has what the preset says."""

EVENTS_PER_READER = 100
"""Few enough that two days fit into a few minutes on 2 cores."""

SAME_ITEMS = "of the places hold the same items."
"""Said below the first two feeds."""


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on now."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def own_settings(home: Path) -> Settings:
    """A home of its own on free ports; the ports of a former `up` there while it runs."""
    bus, cache, gateway, ingestion, features, sink, trainer, ranker, keeper = free_ports(9)
    settings = load(
        home=home,
        bus_url=f"redis://127.0.0.1:{bus}/0",
        cache_url=f"redis://127.0.0.1:{cache}/0",
        gateway_port=gateway,
        ingestion_port=ingestion,
        feature_store_port=features,
        lake_sink_port=sink,
        trainer_port=trainer,
        batch_ranker_port=ranker,
        batch_ranker_keeper_port=keeper,
    )
    if Supervisor(settings).is_running():
        raise CommandError(
            f"{home} is up already.", f"Stop it first: FEEDRANK_HOME={home} {invocation()} down"
        )
    return settings


def demo(
    once: Annotated[
        bool, typer.Option("--once", help="Stop everything after the show; exit 0 if it worked.")
    ] = False,
    home: Annotated[Path | None, typer.Option(help="A folder; a temporary one if absent.")] = None,
    users: Annotated[int, typer.Option(min=50, help="Simulated readers.")] = 1000,
    items: Annotated[int, typer.Option(min=200, help="Simulated items.")] = 2000,
    days: Annotated[int, typer.Option(min=2, help="Days of simulated history.")] = 14,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of training.")] = EPOCHS,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the world.")] = 7,
) -> None:
    """Show the whole loop on this machine, in its own home and on free ports.

    A simulated world comes in, a day is computed, two readers' feeds stand side by side; one
    of them likes items of a category that the feed hardly shows, another day is computed, and
    the feed is shown before and after. Without --once the services stay up.

    For example:

        feedrank demo

        feedrank demo --once
    """
    interrupt_on_signals()
    console = Console(soft_wrap=True)
    root = home or Path(tempfile.mkdtemp(prefix="feedrank-demo-"))
    settings = own_settings(root)
    with _ending(settings, console, once=once, is_temporary=home is None):
        worked = _show(settings, console, (users, items, days, seed), epochs)
        if once and not worked:
            raise typer.Exit(1)
    if not once:
        here = f"FEEDRANK_HOME={settings.place.root} {invocation()}"
        console.print(f"\n{addresses(settings)}\nFeeds: {here} feed USER\nStop:  {here} down")
    if not worked:
        raise typer.Exit(1)


@contextlib.contextmanager
def _ending(
    settings: Settings, console: Console, *, once: bool, is_temporary: bool
) -> Iterator[None]:
    """Stop the services, unless the show came to its end and they are to stay.

    A temporary home goes with them, but not that of a failure: its logs say what failed.
    """
    is_over, is_kept = True, not is_temporary
    try:
        yield
        is_over = once
    except Exception:
        is_kept = True
        console.print(f"The home stays, with all logs: {settings.place.root}", markup=False)
        raise
    finally:
        if is_over:
            Supervisor(settings).stop()
        if is_over and not is_kept:
            shutil.rmtree(settings.place.root, ignore_errors=True)


def _show(
    settings: Settings, console: Console, world: tuple[int, int, int, int], epochs: int
) -> bool:
    began = time.monotonic()
    _tell(console, began, "Services start while a world is made")
    _bring_in_world(settings, console, world)
    _tell(console, began, "First day")
    _day(settings, console, epochs)
    one, other = two_readers(settings)
    before, neighbour = look(settings, one), look(settings, other)
    console.print(side_by_side(before, neighbour, (one, other)))
    common = common_share(before, neighbour)
    console.print(f"{common:.0%} {SAME_ITEMS}")
    category, liked = rare_items(settings, before)
    _tell(console, began, f"{one} likes {len(liked)} items of {category!r}; second day")
    like(settings, one, liked)
    _day(settings, console, epochs)
    after = look(settings, one, not_bundle=before.bundle)
    console.print(side_by_side(before, after, (f"{one} before", f"{one} after"), category))
    unmoved = look(settings, other, not_bundle=neighbour.bundle)
    for was, is_now, did in (
        (before, after, f"liked {len(liked)} of it"),
        (neighbour, unmoved, "liked nothing"),
    ):
        console.print(
            f"{category}: {was.share(category):.0%} of {was.user}'s feed before, "
            f"{is_now.share(category):.0%} after; {was.user} {did}."
        )
    gained = rise(category, before, after) - rise(category, neighbour, unmoved)
    worked = common <= MAX_COMMON and gained >= MIN_RISE
    _tell(console, began, "It worked" if worked else "It did NOT work")
    return worked


def _bring_in_world(settings: Settings, console: Console, world: tuple[int, int, int, int]) -> None:
    folder = settings.place.root / "world"
    maker = _make_world(folder, *world)
    try:
        start(settings, console)
        if maker.wait() != 0:
            raise CommandError("The simulator failed.", "Its words stand above.")
    finally:
        maker.kill()
        maker.wait()
    show(bring_in(settings, "parquet", folder), console)


def _make_world(
    folder: Path, users: int, items: int, days: int, seed: int
) -> subprocess.Popen[bytes]:
    sizes = {"users": users, "items": items, "days": days, "seed": seed}
    sizes["events"] = EVENTS_PER_READER * users
    options = [text for name, value in sizes.items() for text in (f"--{name}", str(value))]
    return subprocess.Popen(
        [sys.executable, "-m", "feedrank_simulator", "bulk", "--out", str(folder), *options],
        stdout=subprocess.DEVNULL,
    )


def _day(settings: Settings, console: Console, epochs: int) -> None:
    show_day(Day(settings, settings.place.runs / new_run_id(), epochs=epochs), console)


def _tell(console: Console, began: float, text: str) -> None:
    console.print(f"\n[bold]{text}[/]  ({time.monotonic() - began:.0f} s)", highlight=False)
