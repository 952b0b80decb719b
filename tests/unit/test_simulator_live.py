"""Readers as clients, against a small stand-in for gateway and intake."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import httpx
import numpy as np
import orjson
import pytest
from feedrank_core.contracts.api import ItemBatch, UserBatch
from feedrank_core.contracts.events import ClientImpression, ClientInteraction
from feedrank_simulator.live import LiveError, LiveReport, read_rounds
from feedrank_simulator.publishing import publish
from feedrank_simulator.world import World

END = datetime(2026, 1, 15, tzinfo=UTC)


class Intake:
    """Serves one fixed list to everyone, and keeps what is posted."""

    def __init__(self, item_ids: list[str]) -> None:
        self.item_ids = item_ids
        self.events: list[dict] = []
        self.posted: list[tuple[str, dict]] = []
        self.requests = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return httpx.Response(200, json=self.feed(request))
        body = orjson.loads(request.content)
        self.posted.append((request.url.path, body))
        members = next(iter(body.values()))
        self.events += body.get("events", [])
        return httpx.Response(202, json={"accepted": len(members), "rejected": []})

    def feed(self, request: httpx.Request) -> dict:
        self.requests += 1
        limit = int(request.url.params["limit"])
        return {
            "request_id": f"request-{self.requests}",
            "session_id": "session",
            "user_id": request.url.path.split("/")[3],
            "served_at": END.isoformat(),
            "bundle": None,
            "items": [
                {"item_id": item_id, "position": p, "value": 0.0, "source": "cached"}
                for p, item_id in enumerate(self.item_ids[:limit])
            ],
            "next_cursor": None,
        }


@pytest.fixture(scope="module")
def world() -> World:
    return World.make(3, 60, 300, end=END)


def run(world: World, handler, **more) -> LiveReport:  # type: ignore[no-untyped-def]
    settings = {"users": range(40), "rounds": 2, "seed": 1, "limit": 10} | more
    return asyncio.run(
        read_rounds(
            world,
            gateway_url="http://gateway/",
            intake_url="http://intake",
            clock=lambda: END,
            transport=httpx.MockTransport(handler),
            **settings,
        )
    )


def test_readers_post_valid_impressions_and_interactions_of_what_they_were_served(
    world: World,
) -> None:
    intake = Intake([f"item-{i}" for i in range(290, 300)])
    report = run(world, intake)
    assert len(report.pages) == 80
    assert report.posted == report.accepted == len(intake.events)
    assert len({event["event_id"] for event in intake.events}) == len(intake.events)
    impressions = [e for e in intake.events if e["event_type"] == "impression"]
    for event in intake.events:
        model = ClientImpression if event["event_type"] == "impression" else ClientInteraction
        model.model_validate_json(orjson.dumps(event))
        assert event["item_id"] == f"item-{290 + event['position']}"
    assert len(impressions) == sum(page.looked_at for page in report.pages)
    assert any(e["event_type"] == "click" for e in intake.events)


def test_readers_look_at_the_top_more_often_than_at_the_bottom(world: World) -> None:
    intake = Intake([f"item-{i}" for i in range(290, 300)])
    run(world, intake)
    shown = [e["position"] for e in intake.events if e["event_type"] == "impression"]
    counts = np.bincount(shown, minlength=10)
    assert counts[0] == 80
    assert (np.diff(counts) <= 0).all()
    assert counts[9] < 70


def test_reward_is_the_true_expected_clicks_and_a_better_order_earns_more(world: World) -> None:
    user = 5
    truth = world.click_probability(np.full(300, user), np.arange(300), END, 0)
    order = np.argsort(-truth)
    best = run(world, Intake([f"item-{i}" for i in order]), users=[user], rounds=1)
    worst = run(world, Intake([f"item-{i}" for i in order[::-1]]), users=[user], rounds=1)
    expected = world.click_probability(np.full(10, user), order[:10], END, np.arange(10)).sum()
    assert best.reward_by_round() == pytest.approx([float(expected)])
    assert best.pages[0].reward > worst.pages[0].reward


def test_items_of_another_world_are_seen_and_never_acted_on(world: World) -> None:
    intake = Intake(["196", "item-300", "item-x", "item-9999999"])
    report = run(world, intake)
    assert {event["event_type"] for event in intake.events} == {"impression"}
    assert all(page.unknown == 4 and page.reward == 0 for page in report.pages)


def test_an_empty_feed_is_a_page_without_events(world: World) -> None:
    intake = Intake([])
    report = run(world, intake)
    assert report.posted == 0
    assert all(page.looked_at == 0 for page in report.pages)


def test_the_same_seed_acts_the_same(world: World) -> None:
    feeds = [Intake([f"item-{i}" for i in range(200, 210)]) for _ in range(2)]
    reports = [run(world, feed, concurrency=1) for feed in feeds]
    assert feeds[0].events == feeds[1].events
    assert reports[0] == reports[1]


def test_refused_events_are_told_by_id_and_reason(world: World) -> None:
    intake = Intake(["item-290"])

    def refuse_first(request: httpx.Request) -> httpx.Response:
        answer = intake(request)
        if request.method == "GET":
            return answer
        rejected = [{"index": 0, "reason": "occurred_at: too far ahead"}]
        accepted = answer.json()["accepted"] - 1
        return httpx.Response(202, json={"accepted": accepted, "rejected": rejected})

    report = run(world, refuse_first, rounds=1)
    assert report.accepted == report.posted - 1
    assert report.rejected == ["request-1-0-impression: occurred_at: too far ahead"]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (httpx.Response(503, text="no bundle"), "503 no bundle"),
        (httpx.Response(200, json={"items": "?"}), "the answer is no feed"),
    ],
)
def test_a_bad_answer_names_the_call(world: World, answer: httpx.Response, said: str) -> None:
    with pytest.raises(LiveError, match=f"GET http://gateway/v1/users/user-.*{said}"):
        run(world, lambda _: answer)


def test_a_system_that_is_down_is_told_with_a_remedy(world: World) -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    with pytest.raises(LiveError, match="is it up\\? See `feedrank status`"):
        run(world, refuse)


@pytest.mark.parametrize("bad", [{"limit": 0}, {"limit": 101}, {"rounds": 0}, {"concurrency": 0}])
def test_limits_out_of_range_are_refused(world: World, bad: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="limit from 1 to 100"):
        run(world, Intake([]), **bad)


def test_publishing_posts_valid_profiles_and_items_in_batches(world: World) -> None:
    intake = Intake([])
    accepted = asyncio.run(
        publish(
            world,
            intake_url="http://intake",
            users=np.arange(60),
            items=np.arange(300),
            transport=httpx.MockTransport(intake),
        )
    )
    assert accepted == 360
    assert [path for path, _ in intake.posted] == ["/v1/users:batch"] + 2 * ["/v1/items:batch"]
    for path, body in intake.posted:
        raw = orjson.dumps(body)
        assert len(raw) < 1 << 20
        (UserBatch if "users" in path else ItemBatch).model_validate_json(raw)
