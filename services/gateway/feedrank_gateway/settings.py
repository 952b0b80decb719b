"""Settings of the gateway, from FEEDRANK_* variables."""

from __future__ import annotations

from pathlib import Path

from feedrank_core.runtime.home import Home
from pydantic import AliasChoices, Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Checked at the start; a bad value stops it and names the variable."""

    model_config = SettingsConfigDict(
        env_prefix="FEEDRANK_GATEWAY_", frozen=True, populate_by_name=True
    )

    home: Path = Field(
        default_factory=lambda: Home.from_environment().root, validation_alias="FEEDRANK_HOME"
    )
    bus_url: str = Field(
        default="redis://127.0.0.1:7801/0", validation_alias="FEEDRANK_BUS_URL", min_length=1
    )
    cache_url: str = Field(
        default="redis://127.0.0.1:7802/0", validation_alias="FEEDRANK_CACHE_URL", min_length=1
    )
    host: str = Field(
        default="127.0.0.1",
        validation_alias=AliasChoices("FEEDRANK_GATEWAY_HOST", "FEEDRANK_HOST"),
    )
    port: int = Field(default=8080, ge=1, le=65_535)
    workers: int = Field(default=1, ge=1, le=256)
    """Processes that share the port and the bundle's mapped pages."""
    cache_timeout_s: float = Field(default=0.25, gt=0, le=5)
    """Longest wait for one answer of the cache; then the feed degrades."""
    poll_s: float = Field(default=0.25, gt=0, le=60)
    """How often the gateway asks which bundle serves."""
    slate_queue: int = Field(default=10_000, ge=1)
    """Slates that wait for the bus in memory; what comes beyond is dropped and counted."""
    cursor_secret: str | None = Field(default=None, min_length=16)
    """Signs cursors; one for all gateways of an installation. Made in HOME/run when absent."""
