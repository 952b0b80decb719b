"""Builds the clients of each command and runs it; nothing else opens a connection."""

from __future__ import annotations

from datetime import datetime

import structlog
from feedrank_core.contracts.features import Table
from feedrank_core.runtime.lake import Lake
from feedrank_core.runtime.redis_clients import sync_client

from feedrank_feature_store.seen import SeenWriter
from feedrank_feature_store.settings import Settings

log = structlog.get_logger(__name__)


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
    return counts


def put_online(settings: Settings, as_of: datetime) -> None:
    """Register the definitions and materialise readers as of then. Blocks, mostly on Feast."""
    from feature_repo.store import apply, materialise, open_store

    store = open_store(settings.place.root, settings.cache_url)
    apply(store)
    materialise(store, as_of)
    log.info("features_online", as_of=as_of.isoformat())
