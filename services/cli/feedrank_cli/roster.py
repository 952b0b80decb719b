"""The processes of one machine, as data: what `up` starts, in which order, and how it knows."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial

from feedrank_core.runtime.bus_open import is_kafka
from feedrank_core.runtime.valkey import Role, valkey_command

from feedrank_cli.errors import CommandError
from feedrank_cli.settings import Settings, is_local, port_of

READY_PATH = "/readyz"
HEALTHY_PATH = "/healthz"


@dataclass(frozen=True)
class Process:
    """One supervised process.

    `setting` is the variable that moves its port; `up_path` is the probe that `up` waits for,
    None for the bus and the cache, which are ready when they answer a ping.
    """

    name: str
    command: tuple[str, ...]
    port: int
    setting: str
    up_path: str | None


def _server(role: Role, settings: Settings) -> Process:
    url = settings.bus_url if role is Role.BUS else settings.cache_url
    port, folder = port_of(url), settings.place.run / role.value
    try:
        command = valkey_command(role, port=port, folder=folder, cache_bytes=settings.cache_bytes)
    except RuntimeError as error:
        raise CommandError(
            str(error),
            "Or run a Redis-compatible server elsewhere and set FEEDRANK_BUS_URL and "
            "FEEDRANK_CACHE_URL to it.",
        ) from error
    # A rewritten process title overwrites the environment that `down` finds a process by.
    whole = (*command, "--set-proc-title", "no")
    return Process(role.value, whole, port, f"FEEDRANK_{role.value.upper()}_URL", None)


def _broker(settings: Settings) -> Process:
    """Kafka as the bus. A shell of ours prepares the folder, then becomes the broker."""
    port = port_of(settings.bus_url)
    folder = settings.place.run / "kafka"
    command = (sys.executable, "-m", "feedrank_core.runtime.kafka_broker", str(folder))
    ports = (str(port), str(settings.kafka_controller_port))
    return Process(Role.BUS.value, (*command, *ports), port, "FEEDRANK_BUS_URL", None)


def _servers(settings: Settings) -> list[Process]:
    urls = {Role.BUS: settings.bus_url, Role.CACHE: settings.cache_url}
    return [
        _broker(settings) if is_kafka(url) else _server(role, settings)
        for role, url in urls.items()
        if is_local(url)
    ]


def _service(
    settings: Settings, name: str, command: str, port: str, up_path: str = READY_PATH
) -> Process:
    """`command` is a package's and its verb; `port` the field of the settings that holds it."""
    package, verb = command.split()
    whole = (sys.executable, "-m", f"feedrank_{package}", verb)
    return Process(name, whole, getattr(settings, port), f"FEEDRANK_{port.upper()}", up_path)


def roster(settings: Settings) -> list[Process]:
    """Every process of one machine, in the order of their start.

    Servers that a URL places on another host are not ours to start and are left out. Two are waited
    for until they live: the keeper is ready once nothing is lost, which a cache that was started
    just now is not, and the gateway with its first bundle.
    """
    service = partial(_service, settings)
    return [
        *_servers(settings),
        service("ingestion", "ingestion serve", "ingestion_port"),
        service("lake_sink", "ingestion lake-sink", "lake_sink_port"),
        service("feature_store", "feature_store serve", "feature_store_port"),
        service("candidate_keeper", "batch_ranker keep", "batch_ranker_keeper_port", HEALTHY_PATH),
        service("gateway", "gateway serve", "gateway_port", HEALTHY_PATH),
    ]
