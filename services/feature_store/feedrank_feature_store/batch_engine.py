"""The engine that the settings ask for, over the lake as of an instant."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from pathlib import Path

from feedrank_core.contracts.topics import IMPRESSIONS, INTERACTIONS
from feedrank_core.runtime.lake import Lake

from feedrank_feature_store.ports import Engine
from feedrank_feature_store.scratch import scratch_folder
from feedrank_feature_store.settings import Settings

EVENTS_PER_GB = 1_000_000
"""Events of a piece for each GB: what its sorts and its 55 sums take is some 400 bytes each."""


@contextmanager
def batch_engine(settings: Settings, as_of: datetime) -> Iterator[Engine]:
    """The engine, and the right to write this installation's tables with it.

    Raises: BusyError where another run holds it.
    """
    lake = Lake(settings.place.lake)
    with (
        scratch_folder(settings.place.features) as scratch,
        _opened(settings, lake, scratch, as_of) as engine,
    ):
        yield engine


def _opened(
    settings: Settings, lake: Lake, scratch: Path, as_of: datetime
) -> AbstractContextManager[Engine]:
    if settings.engine == "spark":
        from feedrank_feature_store.adapters.spark_engine import SparkEngine

        return SparkEngine(
            lake, as_of, scratch, master=settings.spark_master, memory_gb=settings.memory_gb
        )
    from feedrank_feature_store.adapters.duckdb_engine import DuckDbEngine

    num_events = sum(lake.num_rows(topic.name) for topic in (IMPRESSIONS, INTERACTIONS))
    num_pieces = math.ceil(num_events / (settings.memory_gb * EVENTS_PER_GB))
    return DuckDbEngine(
        lake.connect(as_of), scratch, memory_gb=settings.memory_gb, num_pieces=max(num_pieces, 1)
    )
