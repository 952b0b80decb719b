"""Writes the feature tables of one time from the lake, each replaced as a whole."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import ibis
import ibis.expr.types as ir
import structlog
from feedrank_core.contracts.features import Priors, Table
from feedrank_core.runtime.lake_views import ITEM_TYPES, USER_VERSIONS

from feedrank_feature_store.batch_counters import states
from feedrank_feature_store.catalogue import catalogue, prior_sums, priors_from
from feedrank_feature_store.events import engagements, event_log
from feedrank_feature_store.priors import read_priors, write_priors
from feedrank_feature_store.profiles import profiles
from feedrank_feature_store.readers import readers

log = structlog.get_logger(__name__)

ROW_GROUP = 100_000


def write_catalogue(connection: Any, folder: Path, as_of: datetime) -> int:
    """Write the priors and the catalogue of `as_of`; the number of its items. Blocks."""
    backend, events = _events(connection)
    items = backend.table("items")
    priors = _priors_of(events, items, as_of)
    write_priors(priors, folder)
    expression = catalogue(events, items, priors=priors, as_of=as_of)
    return _write(expression, folder / Table.CATALOGUE)


def write_features(connection: Any, folder: Path, as_of: datetime) -> dict[Table, int]:
    """Write readers, profiles, counters and engagements of `as_of`; the rows of each. Blocks.

    Rates are smoothed by the priors that the catalogue's run wrote, or where none did yet by
    those of the log at hand.
    """
    backend, events = _events(connection)
    users, items = backend.table("users"), backend.table("items")
    priors = read_priors(folder) or _priors_of(events, items, as_of)
    expressions = {
        Table.ENGAGEMENTS: engagements(events),
        Table.USERS: readers(events, users, items, priors=priors, as_of=as_of),
        Table.USER_PROFILES: profiles(events, backend.table(USER_VERSIONS)),
        Table.USER_COUNTERS: states(events, "user_id"),
        Table.ITEM_COUNTERS: states(events, "item_key"),
    }
    return {table: _write(e, folder / table) for table, e in expressions.items()}


def _priors_of(events: ir.Table, items: ir.Table, as_of: datetime) -> Priors:
    sums = prior_sums(events, items).to_pyarrow().to_pylist()[0]
    return priors_from(sums, as_of)


def _events(connection: Any) -> tuple[Any, ir.Table]:
    """The log as a temporary table: read, joined and deduplicated once for all tables."""
    backend = ibis.duckdb.from_connection(connection)
    views = [backend.table(name) for name in ("impressions", "interactions", ITEM_TYPES)]
    return backend, backend.create_table(
        "feedrank_event_log", event_log(*views), temp=True, overwrite=True
    )


def _write(expression: ir.Table, path: Path) -> int:
    """Replace a Parquet file: a reader sees the old one or the new one. Returns its rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished")
    expression.to_parquet(unfinished, compression="zstd", row_group_size=ROW_GROUP)
    unfinished.replace(path)
    num_rows = _num_rows(path)
    log.info("feature_table_written", table=path.name, num_rows=num_rows)
    return num_rows


def _num_rows(path: Path) -> int:
    import pyarrow.parquet as pq

    return pq.read_metadata(path).num_rows
