"""Settings of the simulator, from FEEDRANK_* variables."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Where the running system listens."""

    model_config = SettingsConfigDict(env_prefix="FEEDRANK_", frozen=True)

    host: str = "127.0.0.1"
    gateway_port: int = Field(default=8080, ge=1, le=65_535)
    ingestion_port: int = Field(default=8081, ge=1, le=65_535)

    @property
    def gateway_url(self) -> str:
        """Base URL of the feed API."""
        return f"http://{self.host}:{self.gateway_port}"

    @property
    def intake_url(self) -> str:
        """Base URL of the intake."""
        return f"http://{self.host}:{self.ingestion_port}"
