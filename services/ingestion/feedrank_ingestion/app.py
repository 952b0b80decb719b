"""Builds the intake, the lake sink and their clients: the only file that does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from feedrank_core.runtime.bus import Bus
from feedrank_core.runtime.bus_open import open_bus
from feedrank_core.runtime.http import create_app
from feedrank_core.runtime.lake import Lake
from feedrank_core.runtime.metrics import Metrics

from feedrank_ingestion.lake_sink import LakeSink
from feedrank_ingestion.publishing import GroupPublisher
from feedrank_ingestion.routes import describe, router
from feedrank_ingestion.settings import Settings

SERVICE = "ingestion"


def build_bus(settings: Settings) -> Bus:
    """The bus that the settings name."""
    return open_bus(settings.bus_url)


def create_intake(bus: Bus, metrics: Metrics | None = None) -> FastAPI:
    """The intake over a bus. It starts without one and is ready once the bus answers."""
    metrics = metrics or Metrics(SERVICE)
    publisher = GroupPublisher(bus)

    async def ready() -> str | None:
        await asyncio.to_thread(bus.ping)
        return None

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        publisher.start()
        yield
        await asyncio.to_thread(publisher.stop)

    app = create_app(
        title="Feedrank ingestion", metrics=metrics, ready=ready, public=True, lifespan=lifespan
    )
    app.include_router(router(publisher, metrics))
    describe(app)
    return app


def create_lake_sink(settings: Settings, metrics: Metrics) -> LakeSink:
    """The lake sink over the settings' bus and lake."""
    return LakeSink(
        bus=build_bus(settings),
        lake=Lake(settings.place.lake),
        metrics=metrics,
        max_rows=settings.lake_sink_rows,
        max_seconds=settings.lake_sink_seconds,
    )
