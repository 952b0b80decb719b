"""What every process of one installation is told alike, and how a bad setting ends its start."""

from __future__ import annotations

import re
import sys
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from feedrank_core.runtime.home import Home

GATEWAY_PORT = 8080
INGESTION_PORT = 8081
FEATURE_STORE_PORT = 8084
LAKE_SINK_PORT = 8086
TRAINER_PORT = 8087
BATCH_RANKER_PORT = 8088
BATCH_RANKER_KEEPER_PORT = 8089

Port = Annotated[int, Field(ge=1, le=65_535)]


def _folder(path: Path) -> Path:
    """The absolute path. Raises: ValueError where something that is no folder lies on it."""
    whole = path.absolute()
    try:
        there = next(step for step in (whole, *whole.parents) if step.exists())
    except OSError as error:
        raise ValueError(f"it cannot be had: {error.strerror}") from None
    if not there.is_dir():
        raise ValueError(f"{there} is no folder")
    return whole


def servers_of(url: str) -> list[SplitResult]:
    """Each server of a URL with its host and port; a Kafka may have several."""
    return [urlsplit(f"//{one}") for one in urlsplit(url).netloc.rpartition("@")[2].split(",")]


def _findable(url: str) -> str:
    """The URL as it is. Raises: ValueError where no server can be found by it."""
    parts = urlsplit(url)
    try:
        ports = [server.port for server in servers_of(url)]
    except ValueError as error:
        if "@" in url and "@" not in parts.netloc:
            # The library's message would show the part of a password that it takes for a port.
            reason = "what stands before the @ must have / ? and # as %2F, %3F and %23"
            raise ValueError(reason) from None
        raise error
    if 0 in ports:
        raise ValueError("port 0 is none that a server can be found at")
    if parts.scheme == "kafka" and "@" in parts.netloc:
        raise ValueError("Kafka is told who we are by FEEDRANK_KAFKA_SASL_USERNAME and _PASSWORD")
    return url


ServerUrl = Annotated[str, AfterValidator(_findable)]
_BEFORE_HOST = re.compile(r"(?<=://).*@")
_IN_QUERY = re.compile(r"((?:password|username)=)[^&'\"]*")
_SECRETS = ("secret", "password")
"""Words in the names of settings whose values nobody is shown."""


def masked(text: str) -> str:
    """A URL, or what holds one, without who we are there and how we prove it."""
    return _IN_QUERY.sub(r"\1***", _BEFORE_HOST.sub("***@", text))


class StartSettings(BaseSettings):
    """Settings that a process reads once, when it starts."""

    @classmethod
    def at_start(cls) -> Self:
        """The settings of this process. Raises: SystemExit naming the variable that is wrong."""
        try:
            return cls()
        except ValidationError as error:
            sys.exit(f"error: {cls.complaint(error)}")

    @classmethod
    def complaint(cls, error: ValidationError) -> str:
        """Which variable is wrong, why, and what it was, but for a secret."""
        first = error.errors(include_url=False)[0]
        variable = variable_of(cls, str(first["loc"][0]))
        reason = first["msg"].removeprefix("Value error, ")
        is_secret = any(word in variable.lower() for word in _SECRETS)
        return f"{variable}: {reason} (got {'***' if is_secret else masked(repr(first['input']))})"


class InstallationSettings(StartSettings):
    """The shared settings; a service adds its own, and mostly a prefix for them.

    The variables of the shared ones carry no service's name: one value serves all processes.
    """

    model_config = SettingsConfigDict(
        env_prefix="FEEDRANK_",
        frozen=True,
        populate_by_name=True,
        use_attribute_docstrings=True,
    )

    home: Annotated[Path, AfterValidator(_folder)] = Field(
        default=Path(".feedrank"), validation_alias="FEEDRANK_HOME"
    )
    """Everything lies below it; relative to the working directory."""
    bus_url: ServerUrl = Field(
        default="redis://127.0.0.1:7801/0",
        validation_alias="FEEDRANK_BUS_URL",
        pattern="^(redis|rediss|unix|kafka)://.",
    )
    """`redis://` or `kafka://`; `up` starts the server where it is of this machine."""
    cache_url: ServerUrl = Field(
        default="redis://127.0.0.1:7802/0",
        validation_alias="FEEDRANK_CACHE_URL",
        pattern="^(redis|rediss|unix)://.",
    )
    """`redis://`; never the bus's server: this one evicts."""
    allow_anonymous: bool = Field(default=False, validation_alias="FEEDRANK_ALLOW_ANONYMOUS")
    """Listen also where others reach the services: anybody may then read feeds and erase users."""
    host: str = Field(default="127.0.0.1", validation_alias="FEEDRANK_HOST", min_length=1)
    """The address that services listen on; of this machine alone unless anybody may come."""

    @field_validator("host")
    @classmethod
    def _reached_by_whoever_may(cls, host: str, info: ValidationInfo) -> str:
        if not (is_loopback(host) or info.data.get("allow_anonymous")):
            raise ValueError(
                "others can reach this address, and nobody is asked for a key; listen on"
                " 127.0.0.1, or set FEEDRANK_ALLOW_ANONYMOUS=true to let anybody read and erase"
            )
        return host

    @property
    def place(self) -> Home:
        """The folders of this installation."""
        return Home(self.home)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address. Of other names nobody knows."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def variable_of(settings: type[BaseSettings], name: str) -> str:
    """The environment variable of a field, or of its alias."""
    field = settings.model_fields.get(name)
    alias = field.validation_alias if field else name
    return str(alias or f"{settings.model_config.get('env_prefix', '')}{name}".upper())
