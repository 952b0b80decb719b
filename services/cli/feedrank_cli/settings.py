"""Where the services of this machine listen, and where their data lies."""

from __future__ import annotations

from collections import defaultdict
from typing import Annotated, Any
from urllib.parse import urlsplit

from feedrank_core.runtime.bus_open import is_kafka
from feedrank_core.runtime.settings import (
    BATCH_RANKER_KEEPER_PORT,
    BATCH_RANKER_PORT,
    FEATURE_STORE_PORT,
    GATEWAY_PORT,
    INGESTION_PORT,
    LAKE_SINK_PORT,
    TRAINER_PORT,
    InstallationSettings,
    Port,
    servers_of,
    variable_of,
)
from feedrank_core.runtime.valkey import CACHE_BYTES
from pydantic import Field, ValidationError
from pydantic_settings import SettingsConfigDict

from feedrank_cli.errors import CommandError

STATE_FILE = "up.json"
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_HERE = "this machine"


class Settings(InstallationSettings):
    """Read from `FEEDRANK_*`; what `up` was started with wins while it runs."""

    model_config = SettingsConfigDict(extra="ignore")

    gateway_port: Port = GATEWAY_PORT
    """The feed API."""
    ingestion_port: Port = INGESTION_PORT
    """The intake."""
    feature_store_port: Port = FEATURE_STORE_PORT
    """Probes and metrics."""
    lake_sink_port: Port = LAKE_SINK_PORT
    """Probes and metrics."""
    trainer_port: Port = TRAINER_PORT
    """Probes and metrics while it works."""
    batch_ranker_port: Port = BATCH_RANKER_PORT
    """Probes and metrics while it works."""
    batch_ranker_keeper_port: Port = BATCH_RANKER_KEEPER_PORT
    """Probes and metrics."""
    kafka_controller_port: Port = 7803
    """Of the Kafka that `up --bus kafka` starts."""
    cache_bytes: Annotated[int, Field(ge=1 << 20)] = CACHE_BYTES
    """Of the cache that `up` starts; the default is for some 100,000 readers. It evicts beyond."""
    start_timeout_s: Annotated[float, Field(gt=0)] = 180.0
    """How long `up` waits for every service to be ready."""

    def environment(self) -> dict[str, str]:
        """What a child process needs to find the same home and ports."""
        values = self.model_dump(mode="json")
        return {variable_of(type(self), name): str(value) for name, value in values.items()}

    def shared_ports(self) -> dict[tuple[str, int], list[str]]:
        """Host and port of what is to listen where something else is, with their variables."""
        urls = {"bus_url": self.bus_url, "cache_url": self.cache_url}
        named = {name: (_host_of(url), port_of(url)) for name, url in urls.items()}
        named |= {name: (_HERE, port) for name, port in self if name.endswith("_port")}
        if not is_kafka(self.bus_url):
            del named["kafka_controller_port"]
        found = defaultdict(list)
        for name, place in named.items():
            found[place].append(variable_of(type(self), name))
        return {place: variables for place, variables in found.items() if len(variables) > 1}


def load(**overrides: Any) -> Settings:
    """The settings of this command. Raises: CommandError naming the variable that is wrong."""
    try:
        settings = Settings(**overrides)
    except ValidationError as error:
        raise CommandError(
            Settings.complaint(error), "Set it to a valid value or unset it.", code=2
        ) from error
    state = settings.place.run / STATE_FILE
    if overrides or not state.exists():
        return settings
    return Settings.model_validate_json(state.read_bytes())


def port_of(url: str) -> int:
    """The port of a Redis or Kafka URL; of a list of brokers the first one's."""
    return servers_of(url)[0].port or (9092 if is_kafka(url) else 6379)


def is_local(url: str) -> bool:
    """Whether the server of this URL is one that `up` starts; a list of brokers never is."""
    first, *others = servers_of(url)
    return first.hostname in LOOPBACK and not others


def _host_of(url: str) -> str:
    return _HERE if is_local(url) else servers_of(url)[0].hostname or urlsplit(url).path
