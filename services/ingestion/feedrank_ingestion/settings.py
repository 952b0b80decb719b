"""Settings of the intake and the lake sink, from FEEDRANK_* variables."""

from __future__ import annotations

from feedrank_core.runtime.http import MAX_BODY_S
from feedrank_core.runtime.settings import (
    INGESTION_PORT,
    LAKE_SINK_PORT,
    InstallationSettings,
    Port,
)
from pydantic import Field

MAX_WAITING_BYTES = 16 << 20
"""Some 6 s of 10,000 events/s; with what is made of them, about 60 MB of memory."""


class Settings(InstallationSettings):
    """Checked at the start; a bad value stops it and names the variable."""

    ingestion_port: Port = INGESTION_PORT
    """The intake, its probes and metrics."""
    lake_sink_port: Port = LAKE_SINK_PORT
    """Probes and metrics of the lake sink."""
    intake_waiting_bytes: int = Field(default=MAX_WAITING_BYTES, ge=1)
    """Unanswered requests beyond this are told to come back, by 429."""
    intake_body_seconds: float = Field(default=MAX_BODY_S, gt=0)
    """A body that takes longer to arrive is refused, by 408, so that no room is held for ever."""
    lake_sink_rows: int = Field(default=20_000, ge=1)
    """Rows of one poll: what the sink holds in memory and appends at most."""
    lake_sink_seconds: float = Field(default=2.0, gt=0)
    """How long the sink gathers rows for one append at most."""
    lake_erase_grace_hours: int = Field(default=24, ge=0)
    """How long files with an erased reader's rows stay for those who read them just then."""
    lake_retention_days: int | None = Field(default=None, ge=1)
    """Events accepted longer ago go with the daily compaction; unset keeps them for ever."""
