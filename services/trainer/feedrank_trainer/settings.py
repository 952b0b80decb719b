"""Settings of the trainer, from FEEDRANK_* variables."""

from __future__ import annotations

from pathlib import Path

from feedrank_core.runtime.home import Home
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Checked at the start; a bad value stops it and names the variable."""

    model_config = SettingsConfigDict(
        env_prefix="FEEDRANK_TRAINER_", frozen=True, populate_by_name=True
    )

    home: Path = Field(
        default_factory=lambda: Home.from_environment().root, validation_alias="FEEDRANK_HOME"
    )
    epochs: int = Field(default=6, ge=1)
    batch_size: int = Field(default=512, ge=2)
    max_steps: int = Field(default=20_000, ge=1)
    """Batches at most, however large the log: ten million examples, some ten minutes on 2 cores."""
    threads: int = Field(default=2, ge=1)
