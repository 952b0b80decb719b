"""Settings of the trainer, from FEEDRANK_TRAINER_* variables."""

from __future__ import annotations

from typing import Literal

from feedrank_core.runtime.settings import TRAINER_PORT, InstallationSettings, Port
from pydantic import Field
from pydantic_settings import SettingsConfigDict


class Settings(InstallationSettings):
    """Checked at the start; a bad value stops it and names the variable."""

    model_config = SettingsConfigDict(env_prefix="FEEDRANK_TRAINER_")

    port: Port = TRAINER_PORT
    """Probes and metrics while it works."""
    preset: Literal["feed", "baskets", "sequences"] = "feed"
    """What shape the data has: the configuration of `presets.py` that trains on it."""
    epochs: int | None = Field(default=None, ge=1)
    """Passes over the examples at most, the preset's if unset (6 for `feed`); it may stop early."""
    batch_size: int | None = Field(default=None, ge=2)
    """Examples a step, the preset's if unset (512)."""
    max_steps: int = Field(default=20_000, ge=1)
    """Batches at most, however large the log: ten million examples, some ten minutes on 2 cores."""
    threads: int = Field(default=2, ge=1)
    """Of torch, in all processes that train together."""
    device: str = Field(default="cpu", pattern=r"^(cpu|(cuda|mps|xpu)(:\d+)?)$")
    """What computes: `cpu`, `cuda`, `cuda:1`; one that is not there ends the run."""
