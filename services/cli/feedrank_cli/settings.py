"""Where the services of this machine listen, and where their data lies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from feedrank_core.runtime.bus_open import is_kafka
from feedrank_core.runtime.home import DEFAULT_HOME, Home
from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from feedrank_cli.errors import CommandError

PREFIX = "FEEDRANK_"
STATE_FILE = "up.json"
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})

Port = Annotated[int, Field(ge=1, le=65535)]


class Settings(BaseSettings):
    """Read from `FEEDRANK_*`; what `up` was started with wins while it runs."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore")

    home: Path = Path(DEFAULT_HOME)
    host: str = "127.0.0.1"
    bus_url: str = "redis://127.0.0.1:7801/0"
    kafka_controller_port: Port = 7803
    cache_url: str = "redis://127.0.0.1:7802/0"
    gateway_port: Port = 8080
    ingestion_port: Port = 8081
    feature_store_port: Port = 8084
    lake_sink_port: Port = 8086
    start_timeout_s: Annotated[float, Field(gt=0)] = 180.0

    @property
    def place(self) -> Home:
        """The home, absolute."""
        return Home(self.home.absolute())

    def environment(self) -> dict[str, str]:
        """What a child process needs to find the same home and ports."""
        values = self.model_dump(mode="json") | {"home": str(self.place.root)}
        return {PREFIX + name.upper(): str(value) for name, value in values.items()}


def load(**overrides: Any) -> Settings:
    """The settings of this command. Raises: CommandError naming the variable that is wrong."""
    try:
        settings = Settings(**overrides)
    except ValidationError as error:
        first = error.errors()[0]
        name = PREFIX + str(first["loc"][0]).upper()
        raise CommandError(
            f"{name} is wrong: {first['msg']} (got {first.get('input')!r}).",
            f"Set {name} to a valid value or unset it.",
            code=2,
        ) from error
    state = settings.place.run / STATE_FILE
    if overrides or not state.exists():
        return settings
    return Settings.model_validate_json(state.read_bytes())


def port_of(url: str) -> int:
    """The port of a Redis or Kafka URL."""
    return urlsplit(url).port or (9092 if is_kafka(url) else 6379)


def is_local(url: str) -> bool:
    """Whether the server of this URL is one that `up` starts."""
    return urlsplit(url).hostname in LOOPBACK
