"""The intake over ASGI: what it takes and holds on the bus. What it refuses: test_bad_input."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
import pytest_asyncio
from feedrank_core.contracts.events import Impression, Interaction
from feedrank_core.contracts.items import Item
from feedrank_core.contracts.topics import (
    CHANGE_REPORTS,
    IMPRESSIONS,
    INTERACTIONS,
    ITEMS,
    TOPICS,
    USER_CHANGES,
    USERS,
    Topic,
)
from feedrank_core.runtime.bus import Record
from feedrank_core.runtime.bus_memory import MemoryBus
from feedrank_ingestion.app import create_intake

NOW = datetime.now(UTC)


@pytest.fixture
def bus() -> MemoryBus:
    bus = MemoryBus()
    bus.create_topics()
    return bus


@pytest_asyncio.fixture
async def client(bus: MemoryBus) -> AsyncIterator[httpx.AsyncClient]:
    app = create_intake(bus)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://intake") as client,
    ):
        yield client


def click(event_id: str = "e1", **changes: Any) -> dict[str, Any]:
    return {
        "event_id": event_id,
        "event_type": "click",
        "user_id": "u1",
        "item_id": "i1",
        "occurred_at": NOW.isoformat(),
    } | changes


ITEM = {
    "item_type": "post",
    "creator_id": "c1",
    "category": "news",
    "created_at": "2026-01-01T00:00:00Z",
}


def held(bus: MemoryBus, topic: Topic) -> list[Record]:
    with bus.consumer([topic], group="test", member="m") as consumer:
        return consumer.poll(max_records=10_000, timeout_s=0.0)


async def test_events_go_to_their_topics_with_the_instant_of_acceptance(
    client: httpx.AsyncClient, bus: MemoryBus
) -> None:
    events = [click(), click("e2", event_type="impression"), click("e3", event_type="like")]
    answer = await client.post("/v1/events", json={"events": events})
    assert (answer.status_code, answer.json()) == (202, {"accepted": 3, "rejected": []})
    [impression] = held(bus, IMPRESSIONS)
    assert impression.key == "u1"
    assert Impression.model_validate_json(impression.value or b"").accepted_at >= NOW
    types = [Interaction.model_validate_json(r.value or b"") for r in held(bus, INTERACTIONS)]
    assert [t.event_type for t in types] == ["click", "like"]


async def test_an_event_without_a_type_is_refused(client: httpx.AsyncClient) -> None:
    event = click()
    del event["event_type"]
    answer = await client.post("/v1/events", json={"events": [event]})
    assert answer.json()["rejected"][0]["reason"].startswith("event_type: ")


async def test_without_its_bus_the_intake_says_so_and_recovers(
    client: httpx.AsyncClient, bus: MemoryBus
) -> None:
    bus.is_down = True
    answer = await client.post("/v1/events", json={"events": [click()]})
    assert answer.status_code == 503
    assert answer.headers["retry-after"]
    assert (await client.get("/readyz")).status_code == 503
    assert (await client.get("/healthz")).status_code == 200
    bus.is_down = False
    assert (await client.post("/v1/events", json={"events": [click()]})).status_code == 202
    assert (await client.get("/readyz")).status_code == 200


async def test_items_are_published_replaced_and_withdrawn(
    client: httpx.AsyncClient, bus: MemoryBus
) -> None:
    assert (await client.put("/v1/items/i 1", json=ITEM)).status_code == 202
    batch = {"items": [ITEM | {"item_id": "i2"}, ITEM | {"item_id": "i3", "item_type": "song"}]}
    answer = await client.post("/v1/items:batch", json=batch)
    assert answer.json()["accepted"] == 1
    assert answer.json()["rejected"][0]["reason"].startswith("item_type: ")
    assert (await client.delete("/v1/items/i2")).status_code == 202
    items = [Item.model_validate_json(r.value or b"") for r in held(bus, ITEMS)]
    last = {i.item_id: i.active for i in items}
    assert last == {"i 1": True, "i2": False}


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"text_vector": [1.0]}, "text_vector"),
        ({"created_at": "2999-01-01T00:00:00Z"}, "created_at"),
        ({"item_id": "other"}, "item_id"),
    ],
)
async def test_a_bad_item_is_a_problem_that_names_the_field(
    client: httpx.AsyncClient, change: dict[str, Any], name: str
) -> None:
    answer = await client.put("/v1/items/i1", json=ITEM | change)
    assert (answer.status_code, answer.json()["field"]) == (422, name)


async def test_users_are_published(client: httpx.AsyncClient, bus: MemoryBus) -> None:
    assert (await client.put("/v1/users/u1", json={"country": "DE"})).status_code == 202
    batch = {"users": [{"user_id": "u2"}, {"user_id": "u3", "country": "Germany"}]}
    answer = await client.post("/v1/users:batch", json=batch)
    assert answer.json()["rejected"][0]["reason"].startswith("country: ")
    assert sorted(r.key for r in held(bus, USERS)) == ["u1", "u2"]


async def test_what_was_taken_and_refused_is_counted(client: httpx.AsyncClient) -> None:
    await client.post("/v1/events", json={"events": [click(), click("e2", user_id="")]})
    text = (await client.get("/metrics")).text
    assert 'feedrank_ingestion_accepted_total{topic="interactions"} 1.0' in text
    assert 'feedrank_ingestion_rejected_total{kind="events"' in text


def test_every_topic_of_the_intake_names_it_as_writer() -> None:
    written = {IMPRESSIONS, INTERACTIONS, ITEMS, USERS, USER_CHANGES, CHANGE_REPORTS}
    assert {t for t in TOPICS.values() if "ingestion" in t.writers} == written
