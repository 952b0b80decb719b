"""The simulator's slates as a ranking task, with the truth beside it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from feedrank_core.contracts.events import ENGAGEMENTS
from feedrank_core.contracts.items import DWELL_THRESHOLD_S
from feedrank_core.contracts.slates import HEADS, Head
from feedrank_core.features.encoding import FeatureSchema, action_ids, encode_items, encode_profiles
from feedrank_core.features.ranking import COUNTER_COLUMNS
from feedrank_simulator.bulk import write_history
from feedrank_simulator.parts import EVENT_TABLES, table_path
from feedrank_simulator.rendering import item_index
from feedrank_simulator.world import World
from feedrank_trainer.catalogue import Catalogue
from feedrank_trainer.examples import Log
from feedrank_trainer.labels import seconds
from feedrank_trainer.ranking.examples import RankingExamples, examples_of
from feedrank_trainer.ranking.impressions import Impressions, labelled_impressions

from feedrank_cli.ranker.groups import groups_of
from feedrank_cli.ranker.task import RankingTask

END = datetime(2026, 1, 15, tzinfo=UTC)
DAYS = 14
TUNING_DAYS, TEST_DAYS = 2, 3
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
    connection = _opened(out)
    shown = labelled_impressions(
        connection,
        readers["user_id"].combine_chunks(),
        catalogue.table["item_id"].combine_chunks(),
        as_of=END,
    )
    columns = catalogue.columns()
    profile_columns = readers.select(["country", "age_band", "platform", "interests"]).to_pydict()
    schema = FeatureSchema.fit(columns, profile_columns, user_dense=COUNTER_COLUMNS)
    log = _engaged(connection, schema)
    created_s = seconds(catalogue.table["created_at"])
    profiles = encode_profiles(schema, profile_columns, readers.num_rows)
    examples = examples_of(shown, log, groups_of(columns), created_s, profiles)
    start_test = (END - timedelta(days=TEST_DAYS)).timestamp()
    start_tuning = (END - timedelta(days=TEST_DAYS + TUNING_DAYS)).timestamp()
    train = examples.between(-np.inf, start_tuning)
    trained_N = np.isin(np.arange(len(created_s)), train.impressions.item)
    test = examples.between(start_test, np.inf)
    oracle, truth = truth_of(world, test, readers, catalogue)
    return RankingTask(
        schema=schema,
        items=encode_items(schema, columns, trained=trained_N),
        train=train,
        tuning=examples.between(start_tuning, start_test),
        test=test,
        heads=HEADS,
        oracle=oracle,
        truth=truth,
    )


def _opened(out: Path) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    for name in (*EVENT_TABLES, "items"):
        files = table_path(out, name) / "*.parquet"
        connection.execute(f"CREATE VIEW {name} AS SELECT * FROM read_parquet('{files}')")
    return connection


def _engaged(connection: duckdb.DuckDBPyConnection, schema: FeatureSchema) -> Log:
    """What readers engaged with, by the numbers that `labelled_impressions` gave."""
    kinds = ", ".join(f"'{kind.value}'" for kind in sorted(ENGAGEMENTS))
    thresholds = " ".join(f"WHEN '{t.value}' THEN {s}" for t, s in DWELL_THRESHOLD_S.items())
    table = connection.execute(
        f"""SELECT readers.number AS "user", catalogue.number AS item, event_type AS action,
                   i.accepted_at AS "at"
            FROM interactions i JOIN items USING (item_id)
            JOIN readers ON readers.id = i.user_id JOIN catalogue ON catalogue.id = i.item_id
            WHERE event_type IN ({kinds})
               OR (event_type = 'view' AND dwell_s > CASE item_type {thresholds} END)
            ORDER BY "user", "at", item"""
    ).to_arrow_table()
    return Log(
        table["user"].to_numpy().astype(np.int64),
        table["item"].to_numpy().astype(np.int64),
        action_ids(schema, table["action"].to_pylist()),
        seconds(table["at"]),
        np.ones(table.num_rows, bool),
    )


def truth_of(
    world: World, examples: RankingExamples, readers: pa.Table, catalogue: Catalogue
) -> tuple[np.ndarray, dict[Head, np.ndarray]]:
    """What the world knows of each impression: the click's chance at the first place, and all."""
    shown: Impressions = examples.impressions
    user_U = np.array([int(u.removeprefix("user-")) for u in readers["user_id"].to_pylist()])
    item_N = np.array([item_index(i) for i in catalogue.table["item_id"].to_pylist()])
    user, item = user_U[shown.user], item_N[shown.item]
    oracle = world.click_probability(user, item, shown.served_s, 0)
    chances = world.event_probabilities(user, item, shown.served_s, shown.position)
    truth = {Head.CLICK: chances.click}
    truth |= {Head(kind): chances.click * p for kind, p in chances.after_click.items()}
    unclicked = chances.view - chances.click
    truth |= {Head(kind): unclicked * p for kind, p in chances.after_view.items()}
    return oracle, truth
