"""Settings of the batch ranker, from FEEDRANK_BATCH_RANKER_* variables."""

from __future__ import annotations

from feedrank_core.runtime.settings import (
    BATCH_RANKER_KEEPER_PORT,
    BATCH_RANKER_PORT,
    InstallationSettings,
    Port,
)
from pydantic import Field
from pydantic_settings import SettingsConfigDict


class Settings(InstallationSettings):
    """Checked at the start; a bad value stops it and names the variable."""

    model_config = SettingsConfigDict(env_prefix="FEEDRANK_BATCH_RANKER_")

    port: Port = BATCH_RANKER_PORT
    """Probes and metrics while it works."""
    keeper_port: Port = BATCH_RANKER_KEEPER_PORT
    """Probes and metrics of the keeper."""
    keep_every_s: float = Field(default=10.0, gt=0)
    """How often the keeper looks whether the cache still holds the candidates."""
    num_candidates: int = Field(default=500, ge=1, le=533)
    """Candidates a user: 533 fill the 3,200 bytes of a `cand:` value."""
    chunk_users: int = Field(default=2048, ge=1)
    """Users encoded, searched and written at once; a crash repeats at most one chunk."""
    chunk_items: int = Field(default=4096, ge=1)
    """Items encoded at once."""
    max_search: int = Field(default=2500, ge=1)
    """Most items fetched for one user before what was seen is dropped: 500 and 2000 seen."""
    exact_below: int = Field(default=20_000, ge=0)
    """Catalogues smaller than this are searched exactly: no index would be faster by much."""
    engine: str | None = Field(default=None, pattern="^(exact|scann|faiss)$")
    """Forces an engine; by the size of the catalogue when absent."""
    audit_users: int = Field(default=256, ge=1)
    """Users whose candidates every run also finds by exact search."""
    recall_floor: float = Field(default=0.9, ge=0, le=1)
    """A run whose audited recall is below this writes nothing."""
    seed: int = 0
    """Of the index's training and the audited sample."""
    retire_ttl_s: int = Field(default=60, ge=1)
    """How long candidates of retired bundles still live: requests in flight finish."""
    bundles_kept: int = Field(default=5, ge=1)
    """Newest bundles that stay on disk; the one that serves and the one before it always do."""
