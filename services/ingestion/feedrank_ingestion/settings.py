"""Everything about ingestion that differs between installations."""

from __future__ import annotations

from pathlib import Path

from feedrank_core.runtime.home import Home
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Read from `FEEDRANK_*`. Units stand in the names."""

    model_config = SettingsConfigDict(env_prefix="FEEDRANK_", frozen=True, extra="ignore")

    home: Path = Path(".feedrank")
    bus_url: str = "redis://127.0.0.1:7801/0"
    host: str = "127.0.0.1"
    ingestion_port: int = Field(default=8081, ge=1, le=65_535)
    lake_sink_port: int = Field(default=8086, ge=1, le=65_535)
    lake_sink_rows: int = Field(default=20_000, ge=1)
    lake_sink_seconds: float = Field(default=2.0, gt=0)

    @property
    def place(self) -> Home:
        """The folders of this installation."""
        return Home(self.home.absolute())
