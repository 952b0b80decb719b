"""Builds the intake, the lake sink and their clients: the only file that does."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from fastapi import FastAPI
from feedrank_core.runtime.bus import Bus
from feedrank_core.runtime.bus_open import open_bus
from feedrank_core.runtime.http import MAX_BODY_S, create_app
from feedrank_core.runtime.lake import Lake
from feedrank_core.runtime.lake_erasure import LakeEraser
from feedrank_core.runtime.metrics import Metrics
from feedrank_core.runtime.subjects import Subjects

from feedrank_ingestion.admission import Admission, OverCapacityError
from feedrank_ingestion.lake_sink import LakeSink
from feedrank_ingestion.order_follower import OrderFollower
from feedrank_ingestion.publishing import GroupPublisher
from feedrank_ingestion.receipts import ReceiptBook
from feedrank_ingestion.routes import describe, on_over_capacity, router
from feedrank_ingestion.settings import MAX_WAITING_BYTES, Settings
from feedrank_ingestion.user_routes import user_router

SERVICE = "ingestion"


def build_bus(settings: Settings) -> Bus:
    """The bus that the settings name."""
    return open_bus(settings.bus_url)


def create_intake(
    bus: Bus,
    metrics: Metrics | None = None,
    *,
    subjects: Subjects | None = None,
    max_waiting_bytes: int = MAX_WAITING_BYTES,
    max_body_s: float = MAX_BODY_S,
) -> FastAPI:
    """The intake over a bus. It starts without one and is ready once the bus and its topics are.

    `subjects` is that of the lake, so that receipts are found by a reader's id; without it they
    are found by their own. Requests beyond `max_waiting_bytes` of unanswered bodies are told to
    come back, and who takes longer than `max_body_s` to send one.
    """
    metrics = metrics or Metrics(SERVICE)
    publisher, admission = GroupPublisher(bus), Admission(max_waiting_bytes)
    receipts = ReceiptBook(bus, subjects or Subjects(secrets.token_bytes()))
    have_topics = False

    async def ready() -> str | None:
        nonlocal have_topics
        if not have_topics:
            await asyncio.to_thread(bus.create_topics)
            have_topics = True
        await asyncio.to_thread(bus.ping)
        return None

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        publisher.start()
        receipts.start()
        yield
        receipts.stop()
        await asyncio.to_thread(publisher.stop)

    app = create_app(
        title="Feedrank ingestion",
        metrics=metrics,
        ready=ready,
        public=True,
        lifespan=lifespan,
        max_body_s=max_body_s,
    )
    app.include_router(router(publisher, admission, metrics))
    app.include_router(user_router(publisher, admission, receipts))
    app.add_exception_handler(OverCapacityError, on_over_capacity)
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


def create_order_follower(settings: Settings, metrics: Metrics) -> OrderFollower:
    """What carries erasures and merges out on the settings' lake and bus."""
    lake = Lake(settings.place.lake)
    grace = timedelta(hours=settings.lake_erase_grace_hours)
    return OrderFollower(
        bus=build_bus(settings), lake=lake, eraser=LakeEraser(lake, grace=grace), metrics=metrics
    )
