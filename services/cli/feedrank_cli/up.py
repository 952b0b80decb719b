"""`feedrank up`: the services of one machine."""

from __future__ import annotations

import signal
import time
from enum import StrEnum
from typing import Annotated, Any

import typer
from feedrank_core.runtime.bus_open import is_kafka
from feedrank_core.runtime.kafka_broker import (
    BrokerUnavailableError,
    are_fetched,
    jars,
    require_java,
)
from rich.console import Console

from feedrank_cli.errors import CommandError
from feedrank_cli.invocation import invocation
from feedrank_cli.readiness import wait_ready
from feedrank_cli.roster import roster
from feedrank_cli.settings import Settings, is_local, load, port_of
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
    fetch_broker(settings, console)
    require_free_ports(settings, processes)
    try:
        supervisor.start(processes)
        wait_ready(supervisor, processes, console, timeout_s=settings.start_timeout_s)
    except BaseException:
        supervisor.stop()
        raise
    return supervisor


class BusKind(StrEnum):
    """The buses that one machine can carry its events on."""

    REDIS = "redis"
    KAFKA = "kafka"


def with_bus(settings: Settings, kind: BusKind | None) -> Settings:
    """The settings with the local bus of this kind, on the port that they have.

    Raises: CommandError where the broker of Kafka cannot be had.
    """
    if kind is None or is_kafka(settings.bus_url) == (kind is BusKind.KAFKA):
        return settings
    port = port_of(settings.bus_url)
    path = "" if kind is BusKind.KAFKA else "/0"
    return settings.model_copy(update={"bus_url": f"{kind}://127.0.0.1:{port}{path}"})


def fetch_broker(settings: Settings, console: Console) -> None:
    """Have the jars of a local Kafka before anything starts. Raises: CommandError."""
    if not (is_kafka(settings.bus_url) and is_local(settings.bus_url)):
        return
    try:
        require_java()
        if not are_fetched():
            console.print("Fetching Kafka with Maven, once for this machine.")
        jars()
    except BrokerUnavailableError as error:
        raise CommandError(
            f"No Kafka can run here: {error}.",
            f"Use `{invocation()} up` without --bus, or set FEEDRANK_BUS_URL to a Kafka elsewhere.",
        ) from error


def interrupt_on_signals() -> None:
    """SIGTERM and SIGHUP end a command the way Ctrl-C does, so that its clean-up runs.

    SIGINT too: a shell starts what it puts in the background with that signal ignored.
    """

    def interrupt(_number: int, _frame: Any) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
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
    bus: Annotated[
        BusKind | None, typer.Option(help="What carries the events; kafka needs Java and Maven.")
    ] = None,
) -> None:
    """Start the services of this machine and wait until each is ready.

    Supervised: what dies is started again. Ends with `feedrank down`; Ctrl-C while it starts (or
    any time with --foreground) leaves no process behind. The home moves by FEEDRANK_HOME, the
    servers by FEEDRANK_BUS_URL and FEEDRANK_CACHE_URL, ports by FEEDRANK_GATEWAY_PORT,
    FEEDRANK_INGESTION_PORT, FEEDRANK_FEATURE_STORE_PORT, FEEDRANK_LAKE_SINK_PORT,
    FEEDRANK_BATCH_RANKER_KEEPER_PORT, and those of the day's commands by FEEDRANK_TRAINER_PORT and
    FEEDRANK_BATCH_RANKER_PORT.

    For example:
        feedrank up

        feedrank up --bus kafka

        FEEDRANK_HOME=/tmp/other FEEDRANK_GATEWAY_PORT=9080 feedrank up --foreground
    """
    console = Console(soft_wrap=True)
    interrupt_on_signals()
    settings = with_bus(load(), bus)
    supervisor = start(settings, console)
    console.print(addresses(settings))
    if not foreground:
        console.print(f"Stop with: {invocation()} down")
        return
    console.print("Ctrl-C stops everything.")
    try:
        while supervisor.is_running():
            time.sleep(0.5)
    except KeyboardInterrupt:
        console.print("Stopping.")
    finally:
        supervisor.stop()
