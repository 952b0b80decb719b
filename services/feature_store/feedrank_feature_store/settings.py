"""Settings of the feature store, from FEEDRANK_FEATURE_STORE_* variables."""

from __future__ import annotations

from feedrank_core.runtime.settings import FEATURE_STORE_PORT, InstallationSettings, Port
from pydantic import Field
from pydantic_settings import SettingsConfigDict


class Settings(InstallationSettings):
    """Checked at the start; a bad value stops it and names the variable."""

    model_config = SettingsConfigDict(env_prefix="FEEDRANK_FEATURE_STORE_")

    port: Port = FEATURE_STORE_PORT
    """Probes and metrics."""
    max_records: int = Field(default=5_000, ge=1, le=100_000)
    """Events of one poll: what the stream holds in memory at most."""
    checkpoint_s: float = Field(default=2.0, gt=0, le=60)
    """How often the state is saved: what a crash makes be read again at most."""
    item_stats_every_s: float = Field(default=5.0, gt=0)
    """How often items that changed are published."""
