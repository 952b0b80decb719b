"""The registry of topics: what each carries, who writes it, who reads it.

The edges between services are this data; tests walk it and docs/dataflow.md is drawn from it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from feedrank_core.contracts.base import Message
from feedrank_core.contracts.dead_letters import DeadLetter
from feedrank_core.contracts.events import Impression, Interaction
from feedrank_core.contracts.items import Item
from feedrank_core.contracts.signals import ItemStats, ModelDelta, Verdict
from feedrank_core.contracts.slates import Slate
from feedrank_core.contracts.user_changes import ChangeReport, UserChange
from feedrank_core.contracts.users import User

RETENTION = timedelta(days=7)
DLQ_SUFFIX = "-dlq"


@dataclass(frozen=True)
class Topic:
    """A topic. `compacted` keeps the last record of each key for ever.

    `readers` lists services that may read it; every reader is at-least-once and idempotent.
    `planned` are those of the writers and readers that do not do so yet. `in_lake` says whether
    the lake keeps it too.
    """

    name: str
    model: type[Message]
    key: str
    partitions: int
    compacted: bool
    writers: frozenset[str]
    readers: frozenset[str]
    planned: frozenset[str] = frozenset()
    retention: timedelta = RETENTION
    in_lake: bool = True

    @property
    def dlq(self) -> str:
        """Name of the topic that takes what could not be used."""
        return self.name + DLQ_SUFFIX


def _topic(
    name: str,
    model: type[Message],
    key: str,
    writers: set[str],
    readers: set[str],
    *,
    planned: Iterable[str] = (),
    partitions: int = 8,
    compacted: bool = False,
    **more: Any,
) -> Topic:
    ends = frozenset(writers), frozenset(readers)
    return Topic(name, model, key, partitions, compacted, *ends, frozenset(planned), **more)


IMPRESSIONS = _topic(
    "impressions",
    Impression,
    "user_id",
    {"ingestion"},
    {"ingestion", "feature_store", "drift_monitor"},
    planned={"drift_monitor"},
)
INTERACTIONS = _topic(
    "interactions",
    Interaction,
    "user_id",
    {"ingestion"},
    {"ingestion", "feature_store", "drift_monitor"},
    planned={"drift_monitor"},
)
ITEMS = _topic(
    "items",
    Item,
    "item_id",
    {"ingestion"},
    {"ingestion", "feature_store", "model_server", "gateway"},
    planned={"model_server", "gateway"},
    compacted=True,
)
USERS = _topic(
    "users", User, "user_id", {"ingestion"}, {"ingestion", "feature_store"}, compacted=True
)
SLATES = _topic(
    "slates",
    Slate,
    "user_id",
    {"gateway"},
    {"ingestion", "drift_monitor"},
    planned={"drift_monitor"},
)
ITEM_STATS = _topic(
    "item-stats",
    ItemStats,
    "item_id",
    {"feature_store"},
    {"model_server"},
    planned={"model_server"},
    compacted=True,
    in_lake=False,
)
MODEL_DELTAS = _topic(
    "model-deltas",
    ModelDelta,
    "bundle+item_id",
    {"trainer"},
    {"model_server"},
    planned={"trainer", "model_server"},
    compacted=True,
    in_lake=False,
)
VERDICTS = _topic(
    "verdicts",
    Verdict,
    "check",
    {"drift_monitor"},
    {"ingestion", "drift_monitor"},
    planned={"drift_monitor"},
    partitions=1,
)
USER_CHANGES = _topic(
    "user-changes",
    UserChange,
    "user_id",
    {"ingestion"},
    {"ingestion", "feature_store"},
    # One sequence for everybody, kept until the records that an order speaks of have gone.
    partitions=1,
    retention=2 * RETENTION,
    in_lake=False,
)
CHANGE_REPORTS = _topic(
    "change-reports",
    ChangeReport,
    "change_id+store",
    {"ingestion", "feature_store"},
    {"ingestion"},
    partitions=1,
    compacted=True,
    in_lake=False,
)

TOPICS: dict[str, Topic] = {
    t.name: t
    for t in (
        IMPRESSIONS,
        INTERACTIONS,
        ITEMS,
        USERS,
        SLATES,
        ITEM_STATS,
        MODEL_DELTAS,
        VERDICTS,
        USER_CHANGES,
        CHANGE_REPORTS,
    )
}


def with_dead_letters() -> dict[str, Topic]:
    """Every topic and its `-dlq` twin, which no service reads: what a bus must create."""
    twins = {
        t.dlq: Topic(
            name=t.dlq,
            model=DeadLetter,
            key="topic",
            partitions=1,
            compacted=False,
            writers=t.readers,
            readers=frozenset(),
            planned=t.planned & t.readers,
        )
        for t in TOPICS.values()
    }
    return TOPICS | twins
