"""Settings of the gateway, from FEEDRANK_GATEWAY_* variables."""

from __future__ import annotations

from feedrank_core.runtime.settings import GATEWAY_PORT, InstallationSettings, Port
from pydantic import Field
from pydantic_settings import SettingsConfigDict


class Settings(InstallationSettings):
    """Checked at the start; a bad value stops it and names the variable."""

    model_config = SettingsConfigDict(env_prefix="FEEDRANK_GATEWAY_")

    port: Port = GATEWAY_PORT
    """The feed API, its probes and metrics."""
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
