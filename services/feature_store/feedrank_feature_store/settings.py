"""Settings of the feature store, from FEEDRANK_* variables."""

from __future__ import annotations

from pathlib import Path

from feedrank_core.runtime.home import Home
from pydantic import AliasChoices, Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Checked at the start; a bad value stops it and names the variable."""

    model_config = SettingsConfigDict(
        env_prefix="FEEDRANK_FEATURE_STORE_", frozen=True, populate_by_name=True
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
        validation_alias=AliasChoices("FEEDRANK_FEATURE_STORE_HOST", "FEEDRANK_HOST"),
    )
    port: int = Field(default=8084, ge=1, le=65_535)
    max_records: int = Field(default=5_000, ge=1, le=100_000)
    """Events of one poll: what the stream holds in memory at most."""

    @property
    def place(self) -> Home:
        """Where this installation keeps its files."""
        return Home(self.home.absolute())
