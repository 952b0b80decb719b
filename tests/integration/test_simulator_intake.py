"""What simulated readers post is taken by the real intake, and their history by the real lake."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import httpx
import numpy as np
import pyarrow.parquet as pq
from feedrank_core.contracts.topics import IMPRESSIONS, INTERACTIONS, ITEMS, USERS
from feedrank_core.runtime.bus_memory import MemoryBus
from feedrank_core.runtime.lake import Lake
from feedrank_ingestion.app import create_intake
from feedrank_simulator.bulk import write_history
from feedrank_simulator.live import LiveReport, read_rounds
from feedrank_simulator.parts import TABLES
from feedrank_simulator.publishing import publish
from feedrank_simulator.world import World


class Front(httpx.AsyncBaseTransport):
    """Feeds come from a fixed list; everything else goes to the intake."""

    def __init__(self, intake: httpx.AsyncBaseTransport, item_ids: list[str]) -> None:
        self.intake = intake
        self.item_ids = item_ids
        self.requests = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.host != "gateway":
            return await self.intake.handle_async_request(request)
        self.requests += 1
        places = [
            {"item_id": item_id, "position": p, "value": 0.0, "source": "cached"}
            for p, item_id in enumerate(self.item_ids)
        ]
        feed = {
            "request_id": f"request-{self.requests}",
            "session_id": f"session-{self.requests}",
            "user_id": request.url.path.split("/")[3],
            "served_at": datetime.now(UTC).isoformat(),
            "bundle": None,
            "items": places,
            "next_cursor": None,
        }
        return httpx.Response(200, json=feed)


def test_the_intake_holds_every_profile_item_and_event_of_live_readers() -> None:
    world = World.make(4, 40, 120, end=datetime.now(UTC))
    bus = MemoryBus()
    bus.create_topics()

    async def live() -> tuple[int, LiveReport]:
        app = create_intake(bus)
        front = Front(httpx.ASGITransport(app), [f"item-{i}" for i in range(100, 120)])
        async with app.router.lifespan_context(app):
            published = await publish(
                world,
                intake_url="http://intake",
                users=np.arange(40),
                items=np.arange(120),
                transport=front,
            )
            report = await read_rounds(
                world,
                gateway_url="http://gateway",
                intake_url="http://intake",
                users=range(40),
                rounds=2,
                seed=1,
                transport=front,
            )
        return published, report

    published, report = asyncio.run(live())
    assert published == 160
    assert report.rejected == []
    assert report.accepted == report.posted > 400
    held = {t.name: sum(bus.end_offsets(t).values()) for t in (IMPRESSIONS, INTERACTIONS)}
    assert sum(held.values()) == report.posted
    assert held["impressions"] == sum(page.looked_at for page in report.pages)
    assert sum(bus.end_offsets(ITEMS).values()) == 120
    assert sum(bus.end_offsets(USERS).values()) == 40


def test_the_lake_gives_a_history_back_whole(tmp_path: Path) -> None:
    world = World.make(4, 60, 200, days=3, end=datetime(2026, 1, 15, tzinfo=UTC))
    written = write_history(world, tmp_path / "history", seed=1)
    lake = Lake(tmp_path / "lake")
    for name in TABLES:
        lake.append(name, pq.read_table(tmp_path / "history" / f"{name}.parquet"))
    with lake.connect() as con:
        for name in TABLES:
            row = con.execute(f"select count(*) from {name}").fetchone()
            assert row == (written.rows[name],), name
        unjoined = con.execute(
            "select count(*) from interactions i anti join slates s using (request_id, user_id)"
        ).fetchone()
    assert unjoined == (0,)
