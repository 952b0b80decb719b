"""Builds the gateway: the only file that makes clients."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from feedrank_core.runtime.bundle_store import BundleStore
from feedrank_core.runtime.http import create_app
from feedrank_core.runtime.logs import configure
from feedrank_core.runtime.metrics import Metrics
from feedrank_core.runtime.secret_file import load_secret

from feedrank_gateway.adapters.redis_cache import RedisCache
from feedrank_gateway.adapters.redis_pointer import RedisPointer
from feedrank_gateway.adapters.relay_process import RelayProcess
from feedrank_gateway.bundle_watcher import BundleWatcher
from feedrank_gateway.cursor import CursorCodec
from feedrank_gateway.feed import FeedService
from feedrank_gateway.ports import Cache
from feedrank_gateway.routes import FeedEndpoint, FeedFirst, document_feed
from feedrank_gateway.settings import Settings
from feedrank_gateway.slate_log import SlateLog

SWITCH_INTERVAL_S = 0.0005
"""Python's default of 5 ms is what a request waits while a thread opens a new bundle."""


def create() -> FeedFirst:
    """The application of one worker process, from the environment."""
    configure("gateway")
    return build(Settings.at_start())


def build(settings: Settings) -> FeedFirst:
    """The application with real clients. Nothing connects before it starts."""
    home, metrics = settings.place, Metrics("gateway")
    store, timeout_s = BundleStore(home.bundles), settings.cache_timeout_s
    swaps = metrics.counter("bundle_swaps_total")
    watcher = BundleWatcher(
        store,
        RedisPointer(settings.cache_url, store, timeout_s=timeout_s),
        poll_s=settings.poll_s,
        on_swap=lambda outcome: swaps.labels(outcome).inc(),
    )
    slates = SlateLog(
        RelayProcess(settings.bus_url),
        capacity=settings.slate_queue,
        on_published=metrics.counter("slates_published_total").inc,
        on_dropped=metrics.counter("slates_dropped_total").inc,
    )
    secret = settings.cursor_secret
    cursors = CursorCodec(secret.encode() if secret else load_secret(home.run / "cursor.key"))
    cache = RedisCache(settings.cache_url, timeout_s=timeout_s)
    return assemble(cache, watcher, slates, cursors, metrics)


def assemble(
    cache: Cache, watcher: BundleWatcher, slates: SlateLog, cursors: CursorCodec, metrics: Metrics
) -> FeedFirst:
    """The application around these parts, which it starts and closes."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(watcher.start)
        slates.start()
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        gc.collect()
        gc.freeze()  # what start-up made is never garbage: no full collection walks it again
        yield
        await slates.close()
        await asyncio.to_thread(watcher.close)
        await cache.close()

    async def ready() -> str | None:
        return None if watcher.current else "no bundle serves yet; run `feedrank daily`"

    service = FeedService(cache=cache, cursors=cursors, bundles=watcher, log_slate=slates)
    app = create_app(
        title="Feedrank feed", metrics=metrics, ready=ready, public=True, lifespan=lifespan
    )
    feed = FeedEndpoint(service, cursors, metrics)
    document_feed(app, feed)
    return FeedFirst(app, feed)
