"""`python -m feedrank_ingestion`: the intake, the lake sink, and the daily run's first step."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import orjson
import typer
from feedrank_core.runtime.bus import BusUnavailableError
from feedrank_core.runtime.lake import Lake, LakeError
from feedrank_core.runtime.logs import configure
from feedrank_core.runtime.metrics import Metrics
from feedrank_core.runtime.probes import probes
from feedrank_core.runtime.serving import serve as serve_http
from feedrank_core.runtime.subjects import Subjects

from feedrank_ingestion.app import (
    SERVICE,
    build_bus,
    create_intake,
    create_lake_sink,
    create_order_follower,
)
from feedrank_ingestion.collect import CollectTimeoutError
from feedrank_ingestion.collect import collect as collect_run
from feedrank_ingestion.lake_sink import ReplacedBusError
from feedrank_ingestion.settings import Settings

app = typer.Typer(no_args_is_help=True, help=__doc__)


@app.command()
def serve() -> None:
    """Serve the HTTP intake."""
    settings = Settings.at_start()
    configure(SERVICE)
    intake = create_intake(
        build_bus(settings),
        subjects=Subjects.of_lake(settings.place.lake),
        max_waiting_bytes=settings.intake_waiting_bytes,
        max_body_s=settings.intake_body_seconds,
    )
    serve_http(intake, settings.host, settings.ingestion_port)


@app.command()
def lake_sink() -> None:
    """Move what the bus holds into the lake, and carry out erasures and merges there."""
    settings = Settings.at_start()
    configure("lake_sink")
    metrics = Metrics(SERVICE)
    sink = create_lake_sink(settings, metrics)
    orders = create_order_follower(settings, metrics)

    def stop(*_: object) -> None:
        sink.stop()
        orders.stop()

    def ready() -> str | None:
        return sink.ready() or orders.trouble

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    with (
        probes(metrics, ready, settings.host, settings.lake_sink_port),
        ThreadPoolExecutor(1, "orders") as beside,
    ):
        following = beside.submit(orders.run)
        # Without it erasures would wait unseen: the process ends with it and is started anew.
        following.add_done_callback(stop)
        try:
            sink.run()
        except ReplacedBusError as error:
            _fail(error)
        finally:
            stop()
    following.result()


@app.command()
def collect(run: Annotated[Path, typer.Option()], timeout_s: float = 300.0) -> None:
    """Wait until the lake holds all that the bus does, and pin it as the run's offsets."""
    settings = Settings.at_start()
    try:
        pinned = collect_run(
            build_bus(settings), Lake(settings.place.lake), run, timeout_s=timeout_s
        )
    except (CollectTimeoutError, BusUnavailableError, LakeError) as error:
        _fail(error)
    else:
        typer.echo(orjson.dumps({"as_of": pinned["as_of"]}).decode())


@app.command()
def compact() -> None:
    """Join the lake's small files, and let events past the retention go where there is one."""
    settings = Settings.at_start()
    days, first_kept = settings.lake_retention_days, None
    if days is not None:
        first_kept = (datetime.now(UTC) - timedelta(days=days)).date()
    try:
        replaced = Lake(settings.place.lake).compact(first_kept=first_kept)
        typer.echo(orjson.dumps(replaced).decode())
    except LakeError as error:
        _fail(error)


def _fail(error: Exception) -> None:
    typer.echo(f"error: {error}", err=True)
    raise typer.Exit(1)


if __name__ == "__main__":
    app()
