"""The simulator's slates as a ranking task, with the truth beside it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import ibis
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from feedrank_core.contracts.slates import HEADS, Head
from feedrank_core.evaluation.calibration import SMALLEST
from feedrank_core.features.encoding import FeatureSchema, encode_items, encode_profiles
from feedrank_core.features.ranking import DENSE_COLUMNS
from feedrank_feature_store.events import engagements, event_log, placed
from feedrank_simulator.bulk import write_history
from feedrank_simulator.parts import EVENT_TABLES, table_path
from feedrank_simulator.rendering import item_index
from feedrank_simulator.world import World
from feedrank_trainer.catalogue import VECTORS, Catalogue
from feedrank_trainer.labels import seconds
from feedrank_trainer.ranking.examples import RankingExamples, examples_of
from feedrank_trainer.ranking.histories import engagement_log
from feedrank_trainer.ranking.impressions import Impressions, labelled_impressions
from scipy.special import logit

from feedrank_cli.ranker.groups import groups_of
from feedrank_cli.ranker.task import RankingTask

END = datetime(2026, 1, 15, tzinfo=UTC)
DAYS = 14
TUNING_DAYS, TEST_DAYS = 2, 3
NEEDED = ("impressions", "interactions", "items")
EVENTS_PER_IMPRESSION = 1.36
"""Impressions and what comes of them, by what the world's own numbers make of a page."""


def simulate(out: Path, *, users: int, items: int, impressions: int, seed: int) -> World:
    """A world, with the history of its readers in `out`. Raises: TargetError, OSError."""
    world = World.make(seed, users, items, days=DAYS, end=END)
    events = round(EVENTS_PER_IMPRESSION * impressions)
    write_history(world, out, seed=seed, events_target=events, workers=1)
    return world


def prepare(out: Path, world: World) -> RankingTask:
    """The task of a history; the last days are measured."""
    catalogue = Catalogue.of(pq.read_table(table_path(out, "items")))
    readers = pq.read_table(table_path(out, "users"))
    ids = readers["user_id"].combine_chunks(), catalogue.table["item_id"].combine_chunks()
    connection = _opened(out)
    shown = labelled_impressions(connection, *ids, as_of=END)
    columns = catalogue.columns()
    profile_columns = readers.select(["country", "age_band", "platform", "interests"]).to_pydict()
    schema = FeatureSchema.fit(columns, profile_columns, user_dense=DENSE_COLUMNS)
    _have_engagements(connection, ids[1])
    log = engagement_log(connection, *ids, schema)
    created_s = seconds(catalogue.table["created_at"])
    profiles = encode_profiles(schema, profile_columns, readers.num_rows)
    contents = {name: np.nan_to_num(columns[name]) for name in VECTORS}
    examples = examples_of(shown, log, groups_of(columns), created_s, profiles, contents)
    start_test = (END - timedelta(days=TEST_DAYS)).timestamp()
    start_tuning = (END - timedelta(days=TEST_DAYS + TUNING_DAYS)).timestamp()
    train = examples.between(-np.inf, start_tuning)
    trained_N = np.isin(np.arange(len(created_s)), train.impressions.item)
    tuning = examples.between(start_tuning, start_test)
    test = examples.between(start_test, np.inf)
    return RankingTask(
        schema=schema,
        items=encode_items(schema, columns, trained=trained_N),
        train=train,
        tuning=tuning,
        test=test,
        heads=HEADS,
        tuning_truth_RH=truth_of(world, tuning, readers, catalogue),
        test_truth_RH=truth_of(world, test, readers, catalogue),
    )


def _opened(out: Path) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    for name in (*EVENT_TABLES, "items"):
        files = table_path(out, name) / "*.parquet"
        connection.execute(f"CREATE VIEW {name} AS SELECT * FROM read_parquet('{files}')")
    return connection


def _have_engagements(connection: duckdb.DuckDBPyConnection, item_ids: pa.Array) -> None:
    """A view `engagements`, as the feature store finds them in the events."""
    keys = pa.table({"item_id": item_ids, "item_key": np.arange(len(item_ids))})
    connection.register("keys", keys)
    lake: Any = ibis.duckdb.from_connection(connection)
    tables = {name: lake.table(name).join(lake.table("keys"), "item_id") for name in NEEDED}
    log = event_log(
        # Being shown engages nobody.
        tables["impressions"].limit(0),
        tables["interactions"],
        tables["items"].rename(published_at="accepted_at"),
    )
    lake.create_view("engagements", engagements(placed(log)))


def truth_of(
    world: World, examples: RankingExamples, readers: pa.Table, catalogue: Catalogue
) -> np.ndarray:
    """Logits of what the world knows of each impression, were it at the first place.

    NaN for dwell. Shapes: (R, H).
    """
    shown: Impressions = examples.impressions
    user_U = np.array([int(u.removeprefix("user-")) for u in readers["user_id"].to_pylist()])
    item_N = np.array([item_index(i) for i in catalogue.table["item_id"].to_pylist()])
    chances = world.event_probabilities(user_U[shown.user], item_N[shown.item], shown.served_s, 0)
    found = np.full((len(shown), len(HEADS)), np.nan)
    found[:, HEADS.index(Head.CLICK)] = chances.click
    for kind, chance in chances.after_click.items():
        found[:, HEADS.index(Head(kind))] = chances.click * chance
    for kind, chance in chances.after_view.items():
        found[:, HEADS.index(Head(kind))] = (chances.view - chances.click) * chance
    return logit(np.clip(found, SMALLEST, 1 - SMALLEST))
