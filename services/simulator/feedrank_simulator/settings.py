"""Where the running system listens, from FEEDRANK_* variables."""

from __future__ import annotations

from feedrank_core.runtime.settings import (
    GATEWAY_PORT,
    INGESTION_PORT,
    InstallationSettings,
    Port,
)


class Settings(InstallationSettings):
    """Checked at the start; a bad value stops it and names the variable."""

    gateway_port: Port = GATEWAY_PORT
    """The feed API."""
    ingestion_port: Port = INGESTION_PORT
    """The intake."""

    @property
    def gateway_url(self) -> str:
        """Base URL of the feed API."""
        return f"http://{self.host}:{self.gateway_port}"

    @property
    def intake_url(self) -> str:
        """Base URL of the intake."""
        return f"http://{self.host}:{self.ingestion_port}"
