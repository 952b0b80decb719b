"""Compares the features of the stream's state with those of the batch, at the state's offsets.

Both see the same records: the lake is cut where the state stands. What differs is reported with
the entity, the feature, both values and the first event where they part.
"""

# Ibis types a column by its name as Column, without operators; its backend checks them instead.
# pyright: reportOperatorIssue=false, reportArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import ibis
import numpy as np
import pyarrow.parquet as pq
from feedrank_core.contracts.features import (
    AFFINITY_COLUMNS,
    COUNTER_COLUMNS,
    HISTORY_COLUMNS,
    RATES,
    USER_PROFILE_COLUMNS,
    Priors,
)
from feedrank_core.runtime.lake_views import ITEM_TYPES

from feedrank_feature_store.batch_counters import spans
from feedrank_feature_store.catalogue import DAY_S, catalogue
from feedrank_feature_store.differences import (
    ABSOLUTE,
    RELATIVE,
    Comparison,
    Difference,
    Row,
    equal,
)
from feedrank_feature_store.events import event_log, increments, placed
from feedrank_feature_store.parting import parting_of
from feedrank_feature_store.readers import readers
from feedrank_feature_store.stream.catalogue_state import key_bytes
from feedrank_feature_store.stream.counting import US_PER_S
from feedrank_feature_store.stream.inputs import microseconds
from feedrank_feature_store.stream.outbox import Changed
from feedrank_feature_store.stream.showing import (
    NOTHING_COUNTED,
    ItemView,
    counters_at,
    find_item,
    gather,
    gather_items,
    history_features,
    item_statistics,
    profile_features,
)
from feedrank_feature_store.stream.state import State, user_key

PAGE = 2_000
ITEM_FACTS = ("item_type", "category", "creator_id", "active")
_TASTES = tuple(name for columns in AFFINITY_COLUMNS.values() for name in columns)
USER_FEATURES = (*COUNTER_COLUMNS, *RATES, *HISTORY_COLUMNS, *_TASTES, *USER_PROFILE_COLUMNS)
ITEM_FEATURES = (*COUNTER_COLUMNS, "popularity", "quality", "age_days", *ITEM_FACTS)


def compare(state: State, connection: Any, work: Path, priors: Priors) -> Comparison:
    """Compare every feature of every reader and item. Blocks.

    `connection` holds the lake's views up to the state's positions; `work` takes the batch's
    tables. The state is one that nobody writes, or a read-only snapshot.
    """
    as_of = _after_everything(state)
    backend = ibis.duckdb.from_connection(connection)
    views = [backend.table(name) for name in ("impressions", "interactions", ITEM_TYPES)]
    log = backend.create_table("audited_log", placed(event_log(*views)), temp=True)
    spanned = backend.create_table("audited_spans", spans(log, "user_id"), temp=True)
    users, items = backend.table("users"), backend.table("items")
    batch_users = readers(log, spanned, users, items, priors=priors, as_of=as_of)
    batch_items = catalogue(log, items, priors=priors, as_of=as_of)
    comparison = Comparison(as_of)
    _compare_users(state, _written(batch_users, work / "users.parquet"), comparison, priors)
    _compare_items(state, _written(batch_items, work / "items.parquet"), comparison, priors)
    moved = log.mutate(**increments(log))
    comparison.told = [
        replace(d, parting=parting_of(d, *comparison.rows[d.kind, d.entity], moved, as_of))
        if (d.kind, d.entity) in comparison.rows
        else d
        for d in comparison.told
    ]
    return comparison


def _after_everything(state: State) -> datetime:
    """Now, or the state's last event where its clock is ahead of ours."""
    latest_us = microseconds(datetime.now(UTC))
    for table in (state.users, state.items):
        for _, packed in table.items(state.reader):
            latest_us = max(latest_us, int.from_bytes(packed[:8], "little", signed=True))
    return datetime.fromtimestamp(latest_us // US_PER_S + 1, UTC)


def _written(expression: Any, path: Path) -> pq.ParquetFile:
    path.parent.mkdir(parents=True, exist_ok=True)
    expression.to_parquet(path)
    return pq.ParquetFile(path)


def _compare_users(
    state: State, table: pq.ParquetFile, comparison: Comparison, priors: Priors
) -> None:
    known: set[bytes] = set()
    as_of_us = microseconds(comparison.as_of)
    for page in _pages(table, ("user_id", *USER_FEATURES)):
        marks = {user_key(row["user_id"]): (0, int(Changed.ALL)) for row in page}
        known |= marks.keys()
        views, items = gather(state, marks)
        found = {
            view.user_id: counters_at(view.counters, view.counted_at_us, as_of_us)
            | history_features(view, items, priors)
            | profile_features(view)
            for view in views
        }
        for row in page:
            _compare(comparison, "user", row["user_id"], found.get(row["user_id"]), row)
    comparison.users = len(known)
    absent = (key for key, _ in state.users.items(state.reader) if key not in known)
    for key in absent:
        found = state.users.find(state.reader, key)
        name = found[2] if found else key.hex()
        comparison.add(Difference("user", name, "(the reader)", "counted", "absent"))


def _compare_items(
    state: State, table: pq.ParquetFile, comparison: Comparison, priors: Priors
) -> None:
    known: set[bytes] = set()
    for page in _pages(table, ("item_id", "item_key", *ITEM_FEATURES)):
        keys = [key_bytes(row["item_key"]) for row in page]
        known |= set(keys)
        counted = {view.item_key: view for view in gather_items(state, keys)}
        for key, row in zip(keys, page, strict=True):
            found = _item_features(state, key, counted.get(row["item_key"]), comparison, priors)
            _compare(comparison, "item", row["item_id"], found, row)
    comparison.items = len(known)
    for key, _ in state.catalogue.items(state.reader):
        item = find_item(state, key)
        if item is not None and item.is_published and key not in known:
            difference = Difference("item", item.item_id, "(the item)", "published", "absent")
            comparison.add(difference)


def _item_features(
    state: State, key: bytes, view: ItemView | None, comparison: Comparison, priors: Priors
) -> Row | None:
    """An item as the batch's catalogue describes it, None where the state knows none."""
    item = find_item(state, key)
    if item is None or not item.is_published:
        return None
    as_of_us = microseconds(comparison.as_of)
    uncounted = ItemView(item.item_id, 0, *NOTHING_COUNTED[:2], item)
    counters, popular, good = item_statistics(view or uncounted, as_of_us, priors)
    age_days = max((as_of_us - item.created_at_us) / US_PER_S / DAY_S, 0.0)
    facts = {name: getattr(item, name) for name in ITEM_FACTS} | {"active": item.is_active}
    return counters | {"popularity": popular, "quality": good, "age_days": age_days} | facts


def _compare(
    comparison: Comparison, kind: str, entity: str, stream: Row | None, batch: Row
) -> None:
    names = USER_FEATURES if kind == "user" else ITEM_FEATURES
    comparison.values += len(names)
    if stream is None:
        comparison.add(Difference(kind, entity, f"(the {kind})", "absent", "present"))
        return
    counted = np.array([stream[name] for name in COUNTER_COLUMNS])
    wanted = np.array([batch[name] for name in COUNTER_COLUMNS])
    close = np.isclose(counted, wanted, rtol=RELATIVE, atol=ABSOLUTE)
    differing = [COUNTER_COLUMNS[n] for n in np.flatnonzero(~close)]
    rest = names[len(COUNTER_COLUMNS) :]
    differing += [name for name in rest if not equal(stream[name], batch[name])]
    for name in differing:
        comparison.add(Difference(kind, entity, name, stream[name], batch[name]), stream, batch)


def _pages(table: pq.ParquetFile, columns: tuple[str, ...]) -> Iterator[list[Row]]:
    for batch in table.iter_batches(PAGE, columns=list(columns)):
        yield batch.to_pylist()
