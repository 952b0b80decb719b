"""What of the log the lake alone holds: imports, what the bus dropped, all of a lost state."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import structlog
from feedrank_core.contracts.topics import IMPRESSIONS, INTERACTIONS, ITEMS, RETENTION, USERS
from feedrank_core.runtime.lake import Lake
from feedrank_core.runtime.lake_schema import NOT_FROM_BUS

from feedrank_feature_store.stream.folding import Folder
from feedrank_feature_store.stream.inputs import FOLDED, Events, Inputs, from_lake, microseconds
from feedrank_feature_store.stream.remembered import event_hash
from feedrank_feature_store.stream.state import State, StateLayoutError

log = structlog.get_logger(__name__)

WINDOW = 50_000
"""Imported rows that are folded at once, and so the most that are folded again after a crash."""
BATCH_ROWS = 50_000
ROWS_A_CHECKPOINT = 500_000
MEMORY_LIMIT = "1GB"
"""What DuckDB may hold while it sorts the events of a lost state; the rest goes to the disk."""
DESCRIPTIONS = (ITEMS, USERS)
"""Read first, so that no view waits for its item."""


class LakeLog:
    """Reads the lake into one state. Not safe for two threads at once."""

    def __init__(self, lake: Lake, state: State) -> None:
        self._lake, self._state = lake, state
        # What an import changes of items reaches other services with the next bundle.
        self._folder = Folder(state, mark_items=False, from_lake=True)

    def follow_imports(self) -> int:
        """Fold the next window of what was imported; how many rows it had."""
        for topic in (*DESCRIPTIONS, IMPRESSIONS, INTERACTIONS):
            place = (topic.name, NOT_FROM_BUS)
            start, end = self._state.positions.get(place, 0), self._lake.imported(topic.name)
            if end > start:
                end = min(end, start + WINDOW)
                self.fill(topic.name, NOT_FROM_BUS, start, end)
                return end - start
        return 0

    def fill(self, topic: str, partition: int, start: int, end: int) -> int:
        """Fold a partition's rows from `start` up to `end`; how many the lake had."""
        # As one table: a batch a file of the lake may be a handful of rows.
        batches = [*_read(self._lake, topic, {partition: start}, {partition: end})]
        if batches:
            self._folder.fold(from_lake(topic, pa.Table.from_batches(batches)))
        self._state.positions[topic, partition] = end
        return sum(batch.num_rows for batch in batches)

    def fill_to_its_end(self, topic: str, partition: int) -> int:
        """Fold what the lake has of a partition and the state has not; how many rows."""
        start = self._state.positions.get((topic, partition), 0)
        end = self._lake.positions(topic).get(partition, 0)
        return self.fill(topic, partition, start, end) if end > start else 0


def open_state(folder: Path, lake: Lake) -> State:
    """The state of a folder, built from the lake where the folder has none. Blocks, perhaps long.

    What the lake does not hold yet follows from the bus.
    """
    try:
        state = State(folder)
    except StateLayoutError as reason:
        log.warning("state_dropped", reason=str(reason))
        for name in ("data.mdb", "lock.mdb"):
            (folder / name).unlink(missing_ok=True)
        state = State(folder)
    if state.is_new:
        _take_merges(state, lake)
        _rebuild(state, lake)
    return state


def _take_merges(state: State, lake: Lake) -> None:
    """Those of which an older record may still be on the bus."""
    oldest = datetime.now(UTC) - RETENTION
    for from_user, into_user, at in lake.keys.merges():
        if at >= oldest:
            state.merges.add(from_user, into_user, microseconds(at))


def _rebuild(state: State, lake: Lake) -> None:
    started = time.monotonic()
    ends = {
        topic.name: lake.positions(topic.name) | {NOT_FROM_BUS: lake.imported(topic.name)}
        for topic in FOLDED
    }
    folder = Folder(state, mark_readers=False, mark_items=False, from_lake=True)
    for topic in DESCRIPTIONS:
        for batch in _read(lake, topic.name, {}, ends[topic.name]):
            folder.fold(from_lake(topic.name, batch))
            state.checkpoint(now_s=time.time(), whole=False)
    num_events = _fold_events(state, folder, lake, ends)
    state.positions = {(t, p): end for t, of in ends.items() for p, end in of.items() if end}
    state.checkpoint(now_s=time.time())
    seconds = time.monotonic() - started
    log.info("state_built", events=num_events, seconds=round(seconds, 1), **state.entries())


def _read(
    lake: Lake, topic: str, starts: Mapping[int, int], ends: Mapping[int, int]
) -> Iterator[pa.RecordBatch]:
    is_profile = topic == USERS.name
    return lake.read(topic, starts=starts, ends=ends, mark_inherited=is_profile)


def _fold_events(
    state: State, folder: Folder, lake: Lake, ends: Mapping[str, Mapping[int, int]]
) -> int:
    """Every event once, in the order of acceptance, as the batch reads them."""
    num_events = uncommitted = 0
    with lake.connect(until=ends) as connection:
        connection.execute(f"SET memory_limit = '{MEMORY_LIMIT}'")
        connection.execute(f"SET temp_directory = '{state.folder / 'sorting'}'")
        connection.execute(_EVENTS)
        for batch in connection.to_arrow_reader(BATCH_ROWS):
            inputs = from_lake(INTERACTIONS.name, batch)
            folder.fold(inputs, check_ids=False)
            _remember_ids(state, inputs)
            num_events += batch.num_rows
            uncommitted += batch.num_rows
            if uncommitted >= ROWS_A_CHECKPOINT:
                state.checkpoint(now_s=time.time(), whole=False)
                uncommitted = 0
    return num_events


_EVENTS = """
    SELECT user_id, item_id, event_id, accepted_at, 'impression' AS event_type, 0.0 AS dwell_s
    FROM impressions
    UNION ALL
    SELECT user_id, item_id, event_id, accepted_at, event_type, dwell_s FROM interactions
    ORDER BY accepted_at, event_id
"""


def _remember_ids(state: State, inputs: Inputs) -> None:
    """Of the last days: an id that came over the bus before may come once more."""
    events: Events = inputs.events
    since_us = int((time.time() - timedelta.total_seconds(RETENTION)) * 1e6)
    state.event_ids.remember(
        event_hash(events.topic(n), events.event_id[n])
        for n in range(len(events))
        if events.at_us[n] >= since_us
    )
