"""Settings of the feature store, from FEEDRANK_FEATURE_STORE_* variables."""

from __future__ import annotations

from typing import Literal

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
    checkpoint_s: float = Field(default=5.0, gt=0, le=60)
    """How often the state is saved: what a crash makes be read again at most."""
    item_stats_every_s: float = Field(default=5.0, gt=0)
    """How often items that changed are published."""
    engine: Literal["duckdb", "spark"] = "duckdb"
    """What computes the feature tables: this machine, or Spark."""
    memory_gb: float = Field(default=4.0, ge=0.5)
    """What DuckDB, or Spark's driver, may take of memory for the feature tables."""
    spark_master: str = Field(default="local[*]", validation_alias="FEEDRANK_SPARK_MASTER")
    """Where Spark runs; a cluster must see the folders of the lake and of the features."""
