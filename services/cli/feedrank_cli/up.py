"""`feedrank up`: the services of one machine."""

from __future__ import annotations

import signal
import time
from typing import Annotated, Any

import typer
from rich.console import Console

from feedrank_cli.readiness import wait_ready
from feedrank_cli.roster import roster
from feedrank_cli.settings import Settings, load
from feedrank_cli.supervision import Supervisor, require_free_ports


def start(settings: Settings, console: Console) -> Supervisor:
    """Start everything and return once it is ready; on any failure nothing is left behind."""
    processes = roster(settings)
    supervisor = Supervisor(settings)
    if supervisor.is_running():
        console.print("Already up.")
        wait_ready(supervisor, processes, console, timeout_s=settings.start_timeout_s)
        return supervisor
    supervisor.stop()
    require_free_ports(settings, processes)
    try:
        supervisor.start(processes)
        wait_ready(supervisor, processes, console, timeout_s=settings.start_timeout_s)
    except BaseException:
        supervisor.stop()
        raise
    return supervisor


def interrupt_on_signals() -> None:
    """SIGTERM and SIGHUP end a command the way Ctrl-C does, so that its clean-up runs."""

    def interrupt(_number: int, _frame: Any) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)


def addresses(settings: Settings) -> str:
    """Where to look."""
    base = f"http://{settings.host}"
    return (
        f"feeds   {base}:{settings.gateway_port}/docs\n"
        f"intake  {base}:{settings.ingestion_port}/docs\n"
        f"home    {settings.place.root}"
    )


def up(
    foreground: Annotated[
        bool, typer.Option("--foreground", "-f", help="Stay until Ctrl-C, then stop everything.")
    ] = False,
) -> None:
    """Start the services of this machine and wait until each is ready.

    Supervised: what dies is started again. Ends with `feedrank down`; Ctrl-C while it starts (or
    any time with --foreground) leaves no process behind. Ports move by FEEDRANK_GATEWAY_PORT,
    FEEDRANK_INGESTION_PORT, FEEDRANK_FEATURE_STORE_PORT, FEEDRANK_LAKE_SINK_PORT,
    FEEDRANK_BUS_URL and FEEDRANK_CACHE_URL; the home by FEEDRANK_HOME.

    For example:
        feedrank up

        FEEDRANK_HOME=/tmp/other FEEDRANK_GATEWAY_PORT=9080 feedrank up --foreground
    """
    console = Console(soft_wrap=True)
    interrupt_on_signals()
    settings = load()
    supervisor = start(settings, console)
    console.print(addresses(settings))
    if not foreground:
        console.print("Stop with: feedrank down")
        return
    console.print("Ctrl-C stops everything.")
    try:
        while supervisor.is_running():
            time.sleep(0.5)
    except KeyboardInterrupt:
        console.print("Stopping.")
    finally:
        supervisor.stop()
