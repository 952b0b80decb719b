"""Builds the clients of each command and runs it; nothing else opens a connection."""

from __future__ import annotations

import os
import signal
import socket
from datetime import datetime
from threading import Event

import structlog
from feedrank_core.contracts.features import Table
from feedrank_core.contracts.topics import IMPRESSIONS, INTERACTIONS, USERS
from feedrank_core.runtime.bus import Bus, BusUnavailableError
from feedrank_core.runtime.bus_open import open_bus
from feedrank_core.runtime.lake import Lake
from feedrank_core.runtime.metrics import Metrics
from feedrank_core.runtime.redis_clients import sync_client
from feedrank_core.runtime.serving import start_probe_server

from feedrank_feature_store.consumer import GROUP, PAUSE_S, ReaderFollower
from feedrank_feature_store.seen import SeenWriter
from feedrank_feature_store.segments import SegmentWriter
from feedrank_feature_store.settings import Settings

log = structlog.get_logger(__name__)

CACHE_TIMEOUT_S = 5.0


def extract_catalogue(settings: Settings, as_of: datetime) -> int:
    """Write catalogue.parquet as of then; the number of items. Blocks."""
    from feedrank_feature_store.tables import write_catalogue

    with Lake(settings.place.lake).connect(as_of) as connection:
        return write_catalogue(connection, settings.place.features, as_of)


def extract_features(settings: Settings, as_of: datetime) -> dict[str, int]:
    """Write the feature tables as of then and put them online; rows by table. Blocks."""
    from feedrank_feature_store.tables import write_features

    with Lake(settings.place.lake).connect(as_of) as connection:
        rows = write_features(connection, settings.place.features, as_of)
    counts = {table.name.lower(): num_rows for table, num_rows in rows.items()}
    put_online(settings, as_of)
    with sync_client(settings.cache_url) as cache:
        users = settings.place.features / Table.USERS
        counts["seen"] = SeenWriter(cache).rewrite(users)
        SegmentWriter(cache).restore(users)
    return counts


def put_online(settings: Settings, as_of: datetime) -> None:
    """Register the definitions and materialise readers as of then. Blocks, mostly on Feast."""
    from feature_repo.store import apply, materialise, open_store

    store = open_store(settings.place.root, settings.cache_url)
    apply(store)
    materialise(store, as_of)
    log.info("features_online", as_of=as_of.isoformat())


def follow(settings: Settings) -> None:
    """Keep `seen:` and `segment:` current until SIGTERM or SIGINT. Blocks."""
    stopping = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    metrics = Metrics("feature_store")
    followers: list[ReaderFollower] = []

    def ready() -> str | None:
        return followers[0].trouble if followers else "the bus does not answer"

    probes = start_probe_server(metrics, ready, settings.host, settings.port)
    bus = open_bus(settings.bus_url)
    try:
        _wait_for_bus(bus, stopping)
        if stopping.is_set():
            return
        member = f"{socket.gethostname()}-{os.getpid()}"
        topics = [IMPRESSIONS, INTERACTIONS, USERS]
        with (
            sync_client(settings.cache_url, timeout_s=CACHE_TIMEOUT_S) as cache,
            bus.consumer(topics, group=GROUP, member=member) as consumer,
        ):
            follower = ReaderFollower(
                consumer,
                SeenWriter(cache),
                SegmentWriter(cache),
                metrics,
                max_records=settings.max_records,
            )
            followers.append(follower)
            follower.run(stopping)
    finally:
        bus.close()
        probes.shutdown()
        probes.server_close()


def _wait_for_bus(bus: Bus, stopping: Event) -> None:
    while not stopping.is_set():
        try:
            bus.create_topics()
            return
        except BusUnavailableError as error:
            log.warning("waiting", reason="the bus does not answer", error=str(error))
            stopping.wait(PAUSE_S)
