"""Writes the feature tables of one time from the lake, each replaced as a whole."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import datetime
from pathlib import Path

import ibis.expr.types as ir
from feedrank_core.contracts.features import Priors, Table
from feedrank_core.runtime.lake_views import ITEM_TYPES, USER_VERSIONS

from feedrank_feature_store.batch_counters import spans, states
from feedrank_feature_store.catalogue import catalogue, prior_sums, priors_from
from feedrank_feature_store.events import engagements, event_log, placed
from feedrank_feature_store.ports import Engine, Pieces
from feedrank_feature_store.priors import read_priors, write_priors
from feedrank_feature_store.profiles import profiles
from feedrank_feature_store.readers import readers
from feedrank_feature_store.table_file import table_file


def write_catalogue(engine: Engine, folder: Path, as_of: datetime) -> int:
    """Write the priors and the catalogue of `as_of`; the number of its items. Blocks."""
    pieces = engine.cut("item_key", log=_log(engine), items=engine.view("items"))
    priors = _priors_of(engine, pieces, as_of)
    write_priors(priors, folder)
    with table_file(folder / Table.CATALOGUE) as file:
        for piece in pieces:
            rows = catalogue(piece["log"], piece["items"], priors=priors, as_of=as_of)
            file.append(engine, rows)
    return file.num_rows


def write_features(engine: Engine, folder: Path, as_of: datetime) -> dict[Table, int]:
    """Write readers, profiles, counters and engagements of `as_of`; the rows of each. Blocks.

    Rates are smoothed by the priors that the catalogue's run wrote, or where none did yet by
    those of the log at hand.
    """
    by_user = engine.cut(
        "user_id",
        log=_log(engine),
        users=engine.view("users"),
        versions=engine.view(USER_VERSIONS),
    )
    by_item = engine.cut(
        "item_key",
        log=by_user.whole("log").select("item_key", "at", "t", "action", "dwell_s", "engaged"),
        items=engine.view("items").select("item_key", "category", "creator_id"),
    )
    priors = read_priors(folder) or _priors_of(engine, by_item, as_of)
    rows = _write_readers(engine, folder, by_user, by_item.whole("items"), priors, as_of)
    with table_file(folder / Table.ITEM_COUNTERS) as file:
        for piece in by_item:
            with engine.held(spans(piece["log"], "item_key")) as spanned:
                file.append(engine, states(spanned, "item_key"))
    return rows | {Table.ITEM_COUNTERS: file.num_rows}


def _write_readers(
    engine: Engine,
    folder: Path,
    pieces: Pieces,
    items: ir.Table,
    priors: Priors,
    as_of: datetime,
) -> dict[Table, int]:
    """Every table of readers, piece by piece; the rows of each."""
    written = (Table.ENGAGEMENTS, Table.USERS, Table.USER_PROFILES, Table.USER_COUNTERS)
    with ExitStack() as stack:
        files = {table: stack.enter_context(table_file(folder / table)) for table in written}
        for piece in pieces:
            with (
                engine.held(placed(piece["log"])) as log,
                engine.held(spans(log, "user_id")) as spanned,
            ):
                described = readers(log, spanned, piece["users"], items, priors=priors, as_of=as_of)
                files[Table.ENGAGEMENTS].append(engine, engagements(log))
                files[Table.USERS].append(engine, described)
                files[Table.USER_PROFILES].append(engine, profiles(log, piece["versions"]))
                files[Table.USER_COUNTERS].append(engine, states(spanned, "user_id"))
    return {table: file.num_rows for table, file in files.items()}


def _log(engine: Engine) -> ir.Table:
    return event_log(*(engine.view(name) for name in ("impressions", "interactions", ITEM_TYPES)))


def _priors_of(engine: Engine, pieces: Pieces, as_of: datetime) -> Priors:
    sums: dict[str, float] = {}
    for piece in pieces:
        for batch in engine.batches(prior_sums(piece["log"], piece["items"]), 1):
            for name, amount in batch.to_pylist()[0].items():
                sums[name] = sums.get(name, 0.0) + amount
    return priors_from(sums, as_of)
