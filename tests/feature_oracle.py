"""Every feature by brute force: plain Python over all records, after decision 7's words."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from feedrank_core.contracts.features import (
    AFFINITY_COLUMNS,
    HALF_LIVES_S,
    HISTORY_LENGTH,
    RATES,
    SEEN_LENGTH,
    USER_PROFILE_COLUMNS,
    Counter,
    HalfLife,
    Priors,
    column,
    increments,
    is_engaged,
)
from feedrank_core.contracts.ids import item_key
from feedrank_core.contracts.items import WITHDRAWN, ItemType
from feedrank_core.features import quality as q
from feedrank_core.features.affinity import largest_shares
from feedrank_core.runtime.lake_schema import NOT_FROM_BUS

Row = dict[str, Any]


@dataclass
class Records:
    """Everything ever accepted, by topic, as the lake holds it."""

    impressions: list[Row] = field(default_factory=list)
    interactions: list[Row] = field(default_factory=list)
    items: list[Row] = field(default_factory=list)
    users: list[Row] = field(default_factory=list)


class Oracle:
    """Features of the records accepted by an instant, or strictly before it."""

    def __init__(self, records: Records, as_of: datetime, *, strictly: bool = False) -> None:
        self.as_of = as_of
        self._sees: Callable[[datetime], bool] = (
            (lambda at: at < as_of) if strictly else (lambda at: at <= as_of)
        )
        firsts = [*_first_of_each(records.impressions), *_first_of_each(records.interactions)]
        seen = [event for event in firsts if self._sees(event["accepted_at"])]
        self.events = sorted(seen, key=lambda e: (e["accepted_at"], e["event_id"]))
        self.versions = sorted(
            (v for v in records.items if self._sees(v["accepted_at"])),
            key=lambda v: (v["accepted_at"], v["topic_offset"]),
        )
        self.profiles = sorted(
            (v for v in records.users if self._sees(v["accepted_at"])),
            key=lambda v: (v["accepted_at"], v["topic_offset"]),
        )
        self.last_version = {v["item_id"]: v for v in self.versions if v["creator_id"] != WITHDRAWN}
        self._first_version: dict[str, Row] = {}
        for version in self.versions:
            if version["creator_id"] != WITHDRAWN:
                self._first_version.setdefault(version["item_id"], version)

    def item_type(self, item_id: str) -> ItemType:
        """As first published."""
        return self._first_version[item_id]["item_type"]

    def type_then(self, event: Row) -> ItemType | None:
        """The item's type, if it was published by the time of the event."""
        first = self._first_version.get(event["item_id"])
        known = first is not None and first["accepted_at"] <= event["accepted_at"]
        return first["item_type"] if first is not None and known else None

    def engaged(self, event: Row) -> bool:
        action = event.get("event_type")
        return action is not None and is_engaged(
            action, event.get("dwell_s"), self.type_then(event)
        )

    def counters(self, events: Iterable[Row]) -> dict[str, float]:
        """Decayed to `as_of`, each event on its own."""
        sums = {column(c, h): 0.0 for c in Counter for h in HalfLife}
        for event in events:
            age_s = (self.as_of - event["accepted_at"]).total_seconds()
            action, dwell_s = event.get("event_type"), event.get("dwell_s")
            for counter, amount in increments(action, dwell_s, self.type_then(event)).items():
                for half_life, half_life_s in HALF_LIVES_S.items():
                    sums[column(counter, half_life)] += amount * 2.0 ** (-age_s / half_life_s)
        return sums

    def priors(self) -> Priors:
        """The means over the published items."""
        of_item = defaultdict(list)
        for event in self.events:
            if event["item_id"] in self.last_version:
                of_item[event["item_id"]].append(event)
        counts = [_forever(self.counters(events)) for events in of_item.values()]
        value = q.mean_value(
            sum(q.value_of(c) for c in counts), sum(q.valued_exposures(c) for c in counts)
        )
        rates = {
            name: q.mean_rate(
                sum(c[counter] for c in counts),
                sum(max(c[Counter.IMPRESSIONS], c[counter]) for c in counts),
            )
            for name, counter in RATES.items()
        }
        return Priors(as_of=self.as_of, mean_value=value, **rates)

    def reader(self, user_id: str, priors: Priors) -> Row:
        """Counters, rates, history, tastes and what was seen, by the names of the columns."""
        own = [e for e in self.events if e["user_id"] == user_id]
        counters = self.counters(own)
        counts = _forever(counters)
        history = [e for e in own if self.engaged(e)][-HISTORY_LENGTH:]
        seen: dict[str, None] = {}
        for event in own:
            seen.pop(event["item_id"], None)
            seen[event["item_id"]] = None
        rates = {
            name: q.rate(counts[counter], counts[Counter.IMPRESSIONS], getattr(priors, name))
            for name, counter in RATES.items()
        }
        tastes = {}
        for of, (names, shares) in AFFINITY_COLUMNS.items():
            largest = largest_shares(
                (e["accepted_at"].timestamp(), self._of(e, of)) for e in history
            )
            tastes |= {names: [n for n, _ in largest], shares: [share for _, share in largest]}
        return {
            **counters,
            **rates,
            **tastes,
            "hist_item_key": [item_key(e["item_id"]) for e in history],
            "hist_action": [e["event_type"].value for e in history],
            "hist_at": [e["accepted_at"] for e in history],
            "seen": [item_key(item_id) for item_id in seen][-SEEN_LENGTH:],
        }

    def profile(self, user_id: str) -> Row | None:
        """As last published."""
        own = [p for p in self.profiles if p["user_id"] == user_id]
        return {name: own[-1][name] for name in USER_PROFILE_COLUMNS} if own else None

    def item(self, item_id: str, priors: Priors) -> Row:
        """Counters, popularity and quality."""
        counters = self.counters(e for e in self.events if e["item_id"] == item_id)
        counts = _forever(counters)
        return {
            **counters,
            "popularity": q.popularity(counters["engagements_7d"], counts[Counter.ENGAGEMENTS]),
            "quality": q.quality(counts, priors.mean_value),
        }

    def _of(self, event: Row, of: str) -> str | None:
        version = self.last_version.get(event["item_id"])
        return None if version is None else version[of]


def _first_of_each(events: list[Row]) -> list[Row]:
    # The lake numbers imports as they come.
    numbered = [(_bus_order(event, number), event) for number, event in enumerate(events)]
    firsts: dict[str, Row] = {}
    for _, event in sorted(numbered, key=lambda pair: pair[0]):
        firsts.setdefault(event["event_id"], event)
    return list(firsts.values())


def _bus_order(event: Row, number: int) -> tuple[bool, int]:
    imported = event["topic_partition"] == NOT_FROM_BUS
    return imported, number if imported else event["topic_offset"]


def _forever(counters: dict[str, float]) -> dict[Counter, float]:
    return {c: counters[column(c, HalfLife.FOREVER)] for c in Counter}
