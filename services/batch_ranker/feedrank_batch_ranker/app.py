"""Builds the clients; the only file that does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from feedrank_core.contracts.features import Table
from feedrank_core.runtime.bundle_store import BundleStore
from feedrank_core.runtime.redis_clients import sync_client
from redis import Redis

from feedrank_batch_ranker.settings import Settings


@dataclass(frozen=True)
class App:
    """What the commands work with."""

    store: BundleStore
    cache: Redis
    users: Path


def build(settings: Settings) -> App:
    """Nothing is contacted yet."""
    home = settings.place
    return App(
        BundleStore(home.bundles), sync_client(settings.cache_url), home.features / Table.USERS
    )
