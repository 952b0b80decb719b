"""A small log with everything that makes features hard, drawn from a seed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from feature_oracle import Records, Row
from feedrank_core.contracts.events import InteractionType
from feedrank_core.contracts.items import ItemType, withdrawal
from feedrank_core.contracts.users import AgeBand, Platform
from feedrank_core.runtime.lake import Lake
from feedrank_core.runtime.lake_schema import NOT_FROM_BUS

START = datetime(2026, 1, 1, tzinfo=UTC)
DAYS = 40
NUM_USERS = 12
NUM_ITEMS = 30


def world(seed: int, *, num_events: int = 1500) -> Records:
    """Events that came twice, late, by import, at one instant, and before their item.

    Items change their category, creator and (what must not count) their type; some are
    withdrawn, some never published. Readers change their profile; some have none.
    """
    rng = np.random.default_rng(seed)
    records = Records(items=_items(rng), users=_users(rng))
    for number in range(num_events):
        event = _event(rng, number)
        topic = records.interactions if "event_type" in event else records.impressions
        topic.append(event)
        if rng.random() < 0.1:
            topic.append(_again(rng, event, number))
    return records


def lake_of(root: Path, records: Records) -> Lake:
    """A lake that holds these."""
    lake = Lake(root / "lake")
    for topic, rows in vars(records).items():
        lake.append(topic, rows)
    return lake


def _event(rng: np.random.Generator, number: int) -> Row:
    # So coarse that several events of a reader share an instant.
    at = START + timedelta(hours=int(rng.integers(0, DAYS * 24)))
    imported = rng.random() < 0.2
    event: Row = {
        "event_id": f"e{number}",
        "user_id": f"user-{int(NUM_USERS * rng.random() ** 2)}",
        "item_id": f"item-{rng.integers(NUM_ITEMS)}",
        "request_id": f"r{number // 5}",
        "surface": "home",
        "occurred_at": at - timedelta(days=float(rng.choice([0.0, 0.0, 400.0]))),
        "accepted_at": at,
        "topic_partition": NOT_FROM_BUS if imported else 0,
        "topic_offset": number,
    }
    if rng.random() < 0.6:
        action: InteractionType = rng.choice(list(InteractionType))
        event["event_type"] = InteractionType(action)
        event["dwell_s"] = float(rng.exponential(20.0)) if action == InteractionType.VIEW else None
    return event


def _again(rng: np.random.Generator, event: Row, number: int) -> Row:
    """The same id again: on the bus or by import, with another time."""
    moved = timedelta(minutes=int(rng.integers(-600, 600)))
    imported = rng.random() < 0.5
    return event | {
        "accepted_at": event["accepted_at"] + moved,
        "topic_partition": NOT_FROM_BUS if imported else 0,
        "topic_offset": 100_000 + number,
    }


def _items(rng: np.random.Generator) -> list[Row]:
    versions: list[Row] = []
    for number in range(NUM_ITEMS - 3):
        days = np.sort(rng.uniform(-5, DAYS, size=rng.integers(1, 4)))
        versions += [_version(rng, number, START + timedelta(days=float(d))) for d in days]
        if rng.random() < 0.2:
            at = START + timedelta(days=float(days[-1]) + 1)
            versions.append(dict(withdrawal(f"item-{number}", at)))
    return [v | {"topic_partition": 0, "topic_offset": n} for n, v in enumerate(versions)]


def _version(rng: np.random.Generator, number: int, at: datetime) -> Row:
    return {
        "item_id": f"item-{number}",
        "item_type": ItemType(rng.choice(list(ItemType))),
        "creator_id": f"creator-{rng.integers(14)}",
        "category": f"category-{rng.integers(14)}",
        "created_at": at,
        "active": True,
        "accepted_at": at,
    }


def _users(rng: np.random.Generator) -> list[Row]:
    versions = [
        (n, START + timedelta(days=float(d)))
        for n in range(NUM_USERS - 2)
        for d in np.sort(rng.uniform(-5, DAYS, size=rng.integers(1, 4)))
    ]
    return [_profile(rng, n, at) | {"topic_partition": 0, "topic_offset": o}
            for o, (n, at) in enumerate(versions)]  # fmt: skip


def _profile(rng: np.random.Generator, number: int, at: datetime) -> dict[str, Any]:
    return {
        "user_id": f"user-{number}",
        "country": str(rng.choice(["NL", "DE", "BE"])),
        "age_band": AgeBand.FROM_25,
        "platform": Platform(rng.choice(list(Platform))),
        "interests": [f"category-{rng.integers(14)}"],
        "accepted_at": at,
    }
