"""What is folded: events, versions of items and profiles, from records of the bus or the lake."""

# pyarrow.compute builds its functions at import, where pyright does not see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
from feedrank_core.contracts.events import ENGAGEMENTS, InteractionType
from feedrank_core.contracts.features import COUNTER_OF, Counter
from feedrank_core.contracts.items import Item
from feedrank_core.contracts.topics import IMPRESSIONS, INTERACTIONS, ITEMS, USERS
from feedrank_core.contracts.users import User
from feedrank_core.runtime.bus import Record
from feedrank_core.runtime.dead_letters import reason_of
from pydantic import ValidationError

from feedrank_feature_store.stream.catalogue_state import ItemVersion
from feedrank_feature_store.stream.counting import COUNTER_INDEX
from feedrank_feature_store.stream.event_decoding import (
    DecodedEvent,
    impression_of,
    interaction_of,
)
from feedrank_feature_store.stream.histories import ACTION_CODE, ACTIONS
from feedrank_feature_store.stream.profile_state import Profile

FOLDED = (IMPRESSIONS, INTERACTIONS, ITEMS, USERS)
"""The topics that the stream's features are made of."""
IMPRESSION = len(ACTIONS)
"""The code that stands beside those of ACTIONS for an impression."""
_CODE_OF = ACTION_CODE | {"impression": IMPRESSION}
COUNTER_OF_CODE = np.array(
    [COUNTER_INDEX[COUNTER_OF[InteractionType(action)]] for action in ACTIONS]
    + [COUNTER_INDEX[Counter.IMPRESSIONS]]
)
ENGAGES = np.array([action in ENGAGEMENTS for action in ACTIONS] + [False])
"""By code, whether the action alone engages."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def microseconds(moment: datetime) -> int:
    """Since 1970, exactly."""
    return (moment - _EPOCH) // _MICROSECOND


@dataclass
class Events:
    """Events as columns of one length. Units: instants in microseconds; no dwell is 0."""

    user_id: list[str] = field(default_factory=list)
    item_id: list[str] = field(default_factory=list)
    event_id: list[str] = field(default_factory=list)
    code: list[int] = field(default_factory=list)
    at_us: list[int] = field(default_factory=list)
    dwell_s: list[float] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.user_id)

    def add(self, code: int, event: DecodedEvent, dwell_s: float) -> None:
        """One more event."""
        self.user_id.append(event.user_id)
        self.item_id.append(event.item_id)
        self.event_id.append(event.event_id)
        self.code.append(code)
        self.at_us.append(microseconds(event.accepted_at))
        self.dwell_s.append(dwell_s)

    def take(self, rows: Iterable[int]) -> Events:
        """These rows alone."""
        rows = list(rows)
        return Events(
            [self.user_id[row] for row in rows],
            [self.item_id[row] for row in rows],
            [self.event_id[row] for row in rows],
            [self.code[row] for row in rows],
            [self.at_us[row] for row in rows],
            [self.dwell_s[row] for row in rows],
        )

    def topic(self, row: int) -> str:
        """Where the event came from."""
        return IMPRESSIONS.name if self.code[row] == IMPRESSION else INTERACTIONS.name


@dataclass
class Inputs:
    """One read of the log, in its order. `refused` holds what could not be read, and why."""

    events: Events = field(default_factory=Events)
    versions: list[ItemVersion] = field(default_factory=list)
    profiles: list[Profile] = field(default_factory=list)
    refused: list[tuple[Record, str]] = field(default_factory=list)


def from_records(records: Iterable[Record]) -> Inputs:
    """What records of the FOLDED topics say."""
    inputs = Inputs()
    for record in records:
        try:
            _add_record(inputs, record)
        except ValidationError as error:
            inputs.refused.append((record, reason_of(error)))
    return inputs


def from_lake(topic: str, batch: pa.RecordBatch | pa.Table) -> Inputs:
    """What rows of the lake say, in the contract's columns."""
    if topic == ITEMS.name:
        return Inputs(versions=[_version_of_row(row) for row in _rows(batch, _ITEM_COLUMNS)])
    if topic == USERS.name:
        return Inputs(profiles=[_profile_of_row(row) for row in _rows(batch, _USER_COLUMNS)])
    at_us = batch.column("accepted_at").cast(pa.int64()).to_pylist()
    if topic == IMPRESSIONS.name:
        codes, dwell_s = [IMPRESSION] * batch.num_rows, [0.0] * batch.num_rows
    else:
        codes = [_CODE_OF[action] for action in batch.column("event_type").to_pylist()]
        dwell_s = [dwell or 0.0 for dwell in batch.column("dwell_s").to_pylist()]
    users, items, ids = (batch.column(name).to_pylist() for name in _EVENT_COLUMNS)
    return Inputs(Events(users, items, ids, codes, at_us, dwell_s))


def _add_record(inputs: Inputs, record: Record) -> None:
    if record.topic == IMPRESSIONS.name:
        inputs.events.add(IMPRESSION, impression_of(record.value or b""), 0.0)
    elif record.topic == INTERACTIONS.name:
        event = interaction_of(record.value or b"")
        inputs.events.add(ACTION_CODE[event.event_type], event, event.dwell_s or 0.0)
    elif record.topic == USERS.name:
        inputs.profiles.append(_profile_of(record))
    elif record.value is not None:
        item = Item.model_validate_json(record.value)
        inputs.versions.append(_version_of_row({**dict(item), "topic_offset": record.offset}))


def _profile_of(record: Record) -> Profile:
    if record.value is None:
        return Profile(user_id=record.key, at_us=microseconds(record.published_at), gone=True)
    user = User.model_validate_json(record.value)
    return _profile_of_row({**dict(user), "topic_offset": record.offset})


_EVENT_COLUMNS = ("user_id", "item_id", "event_id")
_ITEM_COLUMNS = ("item_id", "item_type", "creator_id", "category", "created_at", "active")
_ITEM_COLUMNS += ("accepted_at", "topic_offset")
_USER_COLUMNS = ("user_id", "country", "age_band", "platform", "interests")
_USER_COLUMNS += ("accepted_at", "topic_offset", "inherited")


def _rows(batch: pa.RecordBatch | pa.Table, columns: tuple[str, ...]) -> list[dict[str, Any]]:
    return batch.select(list(columns)).to_pylist()


def _version_of_row(row: dict[str, Any]) -> ItemVersion:
    return ItemVersion(
        item_id=row["item_id"],
        item_type=str(row["item_type"]),
        creator_id=row["creator_id"],
        category=row["category"],
        created_at_us=microseconds(row["created_at"]),
        active=row["active"],
        at_us=microseconds(row["accepted_at"]),
        offset=row["topic_offset"],
    )


def _profile_of_row(row: dict[str, Any]) -> Profile:
    return Profile(
        user_id=row["user_id"],
        country=row["country"],
        age_band=str(row["age_band"]),
        platform=str(row["platform"]),
        interests=tuple(row["interests"] or ()),
        at_us=microseconds(row["accepted_at"]),
        offset=row["topic_offset"],
        inherited=row.get("inherited", False),
    )
