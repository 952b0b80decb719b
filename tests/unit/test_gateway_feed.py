"""The feed's answer, its fallbacks and its refusals, on fakes."""

from __future__ import annotations

import asyncio
from collections import Counter

import httpx
import numpy as np
import orjson
import pytest
from feedrank_core.contracts.api import FeedResponse, Problem
from feedrank_core.contracts.bundle import Part
from feedrank_core.contracts.ids import item_key
from feedrank_core.contracts.slates import Slate
from gateway_world import CATEGORIES, CREATORS, FIRST, NUM_ITEMS, SECOND, GatewayWorld, write_bundle
from structlog.testing import capture_logs


@pytest.fixture
def world(tmp_path):
    world = GatewayWorld(tmp_path)
    world.watcher.poll()
    return world


def _client(world: GatewayWorld) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(world.app), base_url="http://gateway.test"
    )


async def _feed(world: GatewayWorld, user: str = "ada", **params) -> dict:
    async with _client(world) as client:
        answer = await client.get(f"/v1/users/{user}/feed", params=params)
    assert answer.status_code == 200, answer.text
    return FeedResponse.model_validate_json(answer.content).model_dump(mode="json")


async def _problem(world: GatewayWorld, status: int, user: str = "ada", **params) -> Problem:
    async with _client(world) as client:
        answer = await client.get(f"/v1/users/{user}/feed", params=params)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    return Problem.model_validate_json(answer.content)


async def test_the_answer_written_by_hand_equals_its_contract(world):
    world.give_candidates("ada", range(100))
    async with _client(world) as client:
        answer = await client.get("/v1/users/ada/feed")
    by_hand = orjson.loads(answer.content)
    assert set(by_hand) == set(FeedResponse.model_fields)
    modelled = FeedResponse.model_validate_json(answer.content)
    again = modelled.model_dump(mode="json")
    assert again | {"served_at": None} == by_hand | {"served_at": None}


@pytest.mark.parametrize("method", ["HEAD", "POST", "DELETE"])
async def test_no_other_method_makes_a_feed_or_writes_what_was_served(world, method):
    async with _client(world) as client:
        answer = await client.request(method, "/v1/users/ada/feed")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET")
    assert not world.cache.values


@pytest.mark.parametrize("path", ["/v1/users/feed", "/v1/users/ada/feeds", "/v2/users/ada/feed"])
async def test_a_path_that_only_looks_like_a_feed_is_not_found(world, path):
    async with _client(world) as client:
        answer = await client.get(path)
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


async def test_the_documented_route_makes_the_same_feed(world):
    world.give_candidates("ada", range(100))
    transport = httpx.ASGITransport(world.app.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway.test") as client:
        answer = await client.get("/v1/users/ada/feed", params={"limit": 5})
    documented, first = orjson.loads(answer.content), await _feed(world, limit=5)
    assert [i["item_id"] for i in documented["items"]] == [i["item_id"] for i in first["items"]]


async def test_what_nobody_expected_is_a_problem_without_details_and_is_logged(world, monkeypatch):
    async def fail(*_: object) -> None:
        raise ArithmeticError("a secret of the inside")

    monkeypatch.setattr(world.cache, "read", fail)
    with capture_logs() as logs:
        problem = await _problem(world, 500)
    assert "secret" not in str(problem)
    assert [(entry["event"], entry["path"]) for entry in logs] == [
        ("unhandled_error", "/v1/users/ada/feed")
    ]
    assert world.metric("requests_total", surface="any", status="500") == 1


async def test_cached_candidates_come_with_their_source_and_reasons(world):
    world.give_candidates("ada", range(100))
    feed = await _feed(world)
    assert len(feed["items"]) == 20
    assert {i["source"] for i in feed["items"]} == {"cached"}
    assert feed["items"][0]["reasons"][0] == "from your recommendations"
    assert feed["degraded"] == []
    assert feed["bundle"] == FIRST
    assert [i["position"] for i in feed["items"]] == list(range(20))


async def test_a_reader_nobody_knows_gets_what_is_popular_and_nothing_is_degraded(world):
    feed = await _feed(world, "a stranger/with ünusual id")
    assert {i["source"] for i in feed["items"]} == {"global_popular"}
    assert feed["degraded"] == []


async def test_a_reader_of_a_known_segment_gets_its_list_first_then_everybodys(world):
    world.cache.values["segment:ada"] = b"NL|web"
    feed = await _feed(world)
    sources = [i["source"] for i in feed["items"]]
    num_active = sum(world.watcher.current.popular_in(b"NL|web").active_N)
    assert sources == ["segment_popular"] * num_active + ["global_popular"] * (20 - num_active)
    assert feed["items"][0]["reasons"][0] == "popular near you"
    assert len({i["item_id"] for i in feed["items"]}) == 20


@pytest.mark.parametrize("segment", [b"NL|tv", b"", b"\xff\x00"])
async def test_a_segment_without_a_list_gets_everybodys(world, segment):
    world.cache.values["segment:ada"] = segment
    assert {i["source"] for i in (await _feed(world))["items"]} == {"global_popular"}


async def test_pages_never_repeat_and_end_with_a_null_cursor(world):
    world.give_candidates("ada", range(70))
    shown, cursor = [], None
    for _ in range(100):
        feed = await _feed(world, limit=30, **({"cursor": cursor} if cursor else {}))
        assert [i["position"] for i in feed["items"]] == list(
            range(len(shown), len(shown) + len(feed["items"]))
        )
        shown += [i["item_id"] for i in feed["items"]]
        cursor = feed["next_cursor"]
        if cursor is None:
            break
    assert len(shown) == len(set(shown))
    popular = world.watcher.current.popular_indices
    active = world.watcher.current.items.active_I
    assert len(shown) == sum(active[i] for i in {*range(70), *popular})


async def test_popular_tops_up_when_candidates_run_short(world):
    world.give_candidates("ada", range(5))
    feed = await _feed(world)
    sources = [i["source"] for i in feed["items"]]
    assert sources == ["cached"] * 5 + ["global_popular"] * 15


async def test_seen_own_and_withdrawn_items_stay_out(world):
    bundle = world.watcher.current
    world.give_candidates(CREATORS[3], range(100))
    seen = bundle.items.key_I[:40]
    world.cache.values[f"seen:{CREATORS[3]}"] = seen.tobytes()
    feed = await _feed(world, CREATORS[3], limit=100)
    rows = bundle.rows_of(np.array([item_key(i["item_id"]) for i in feed["items"]]))
    assert len(rows) == 100
    assert not set(bundle.items.key_I[rows].tolist()) & set(seen.tolist())
    assert bundle.items.active_I[rows].all()
    assert (bundle.items.creator_I[rows] != 3).all()


async def test_no_creator_and_no_category_crowds_a_stretch_across_pages(world):
    bundle = world.watcher.current
    world.give_candidates("ada", range(NUM_ITEMS))
    first = await _feed(world, limit=15)
    second = await _feed(world, limit=15, cursor=first["next_cursor"])
    rows = bundle.rows_of(
        np.array([item_key(i["item_id"]) for i in first["items"] + second["items"]])
    )
    assert len(CATEGORIES) == 5
    for start in range(len(rows) - 9):
        window = rows[start : start + 10]
        assert max(Counter(bundle.items.creator_I[window].tolist()).values()) <= 2
        assert max(Counter(bundle.items.category_I[window].tolist()).values()) <= 5


@pytest.mark.parametrize("away", [{0}, {1}, {2}, {0, 1}, {1, 2}, {0, 2}, {1, 3}])
async def test_a_cache_that_goes_and_comes_back_repeats_no_place_and_nothing_it_knew(world, away):
    world.give_candidates("ada", range(200, 300))
    cursor, positions, shown = None, [], []
    for page in range(5):
        world.cache.down = page in away
        feed = await _feed(world, **({"cursor": cursor} if cursor else {}))
        items = [i["item_id"] for i in feed["items"]]
        if page not in away:  # what was shown before the cache went is not known without it
            assert not {*items} & {*shown}
        positions += [i["position"] for i in feed["items"]]
        shown += items
        cursor = feed["next_cursor"]
    assert positions == list(range(100))


async def test_without_the_cache_the_bundle_answers_and_says_so(world):
    world.cache.down = True
    first = await _feed(world)
    assert first["degraded"] == ["candidates", "served"]
    assert {i["source"] for i in first["items"]} == {"global_popular"}
    second = await _feed(world, cursor=first["next_cursor"])
    shown = [i["item_id"] for i in first["items"] + second["items"]]
    assert len(set(shown)) == 40
    assert world.metric("degraded_total", reason="served") == 2


async def test_harmed_candidates_degrade_to_popular(world):
    for harmed in (b"12345", np.array([10**6], dtype="<u4").tobytes() + b"\0\0"):
        world.cache.values[f"cand:{FIRST}:ada"] = harmed
        feed = await _feed(world)
        assert feed["degraded"] == ["candidates"]
        assert len(feed["items"]) == 20


async def test_a_bundle_that_stands_in_for_a_harmed_one_is_named_in_answer_and_count(world):
    write_bundle(world.root, SECOND)
    with (world.root / SECOND / Part.POPULAR).open("ab") as file:
        file.write(b" ")
    world.pointer.bundle_id = SECOND
    world.watcher.poll()
    feed = await _feed(world)
    assert (feed["bundle"], feed["degraded"]) == (FIRST, ["bundle"])
    assert world.metric("degraded_total", reason="bundle") == 1


async def test_without_a_bundle_the_answer_is_503_with_the_remedy(tmp_path):
    world = GatewayWorld(tmp_path, bundle=False)
    problem = await _problem(world, 503)
    assert "feedrank daily" in (problem.remedy or "")
    async with _client(world) as client:
        assert (await client.get("/readyz")).status_code == 503
        assert (await client.get("/healthz")).status_code == 200


@pytest.mark.parametrize("limit", ["0", "-1", "101", "1000000000", "1e9", "", "ten", "9" * 5000])
async def test_a_limit_out_of_range_is_refused_by_name(world, limit):
    assert (await _problem(world, 422, limit=limit)).field == "limit"


async def test_an_unknown_surface_is_refused_by_name(world):
    assert (await _problem(world, 422, surface="moon")).field == "surface"


@pytest.mark.parametrize("user", ["a" * 129, "a%00b", "a%E2%80%A8b", "%E2%80%8B"])
async def test_a_user_id_outside_the_rule_is_refused_by_name(world, user):
    assert (await _problem(world, 422, user=user)).field == "user_id"


@pytest.mark.parametrize("user", ["a" * 128, "a%C2%A0b", "a%2Fb", "%F0%9F%99%82"])
async def test_any_user_id_inside_the_rule_gets_a_feed(world, user):
    assert (await _feed(world, user))["items"]


async def test_a_forged_cursor_is_refused(world):
    cursor = (await _feed(world))["next_cursor"]
    forged = ("B" if cursor[0] == "A" else "A") + cursor[1:]
    for bad in (forged, "x", "%%%", "é", cursor[:-4], cursor * 2):
        assert (await _problem(world, 400, cursor=bad)).field == "cursor"


async def test_another_readers_cursor_is_refused(world):
    cursor = (await _feed(world, "ada"))["next_cursor"]
    assert (await _problem(world, 400, user="bob", cursor=cursor)).field == "cursor"


async def test_a_cursor_whose_session_is_gone_is_refused_with_a_remedy(world):
    cursor = (await _feed(world))["next_cursor"]
    world.cache.values.clear()
    assert "without a cursor" in ((await _problem(world, 410, cursor=cursor)).remedy or "")


async def test_an_answer_waits_for_the_served_keys_to_be_written(world, monkeypatch):
    begun, may_end = asyncio.Event(), asyncio.Event()
    write = world.cache.append_served

    async def slow(*arguments, **more):
        begun.set()
        await may_end.wait()
        await write(*arguments, **more)

    monkeypatch.setattr(world.cache, "append_served", slow)
    answer = asyncio.create_task(_feed(world, limit=3))
    await begun.wait()
    for _ in range(1000):  # on fakes, whoever waits for nothing ends within some turns
        await asyncio.sleep(0)
    assert not answer.done()
    may_end.set()
    feed = await answer
    written = world.cache.values[f"served:ada:{feed['session_id']}"]
    assert np.frombuffer(written, dtype=np.int64).tolist() == [
        item_key(i["item_id"]) for i in feed["items"]
    ]


async def test_every_answer_is_logged_as_a_slate_that_validates(world):
    world.give_candidates("ada", range(8))
    world.slates.start()
    feed = await _feed(world, surface="explore")
    await world.slates.close()
    ((user_id, value),) = world.publisher.slates
    slate = Slate.model_validate_json(value)
    assert user_id == slate.user_id == "ada"
    assert slate.request_id == feed["request_id"]
    assert [i.item_id for i in slate.items] == [i["item_id"] for i in feed["items"]]
    assert slate.surface == "explore"
    assert world.metric("slates_published_total") == 1


async def test_a_bus_that_is_down_delays_no_answer_and_drops_are_counted(tmp_path):
    world = GatewayWorld(tmp_path, capacity=5)
    world.watcher.poll()
    world.publisher.down = True
    for _ in range(12):
        await _feed(world)
    assert world.metric("slates_dropped_total") == 7
    await world.slates.close()
    assert world.metric("slates_dropped_total") == 12
    assert world.metric("requests_total", surface="home", status="200") == 12


async def test_slates_that_a_bus_did_not_take_are_published_once_it_is_back(world):
    world.publisher.down = True
    world.slates.start()
    asked = [await _feed(world) for _ in range(3)]
    await world.publisher.was_tried.wait()
    world.publisher.down = False
    await world.slates.close()
    logged = [orjson.loads(slate)["request_id"] for _, slate in world.publisher.slates]
    assert logged == [feed["request_id"] for feed in asked]
    assert world.metric("slates_dropped_total") == 0


async def test_slates_that_the_bus_refuses_are_dropped_and_do_not_stop_the_next(world):
    world.publisher.refuses = True
    with capture_logs() as logged:
        world.slates.start()
        await _feed(world)
        await world.publisher.was_tried.wait()
        world.publisher.refuses = False
        await _feed(world)
        await world.slates.close()
    assert not logged  # the relay has said why
    assert world.metric("slates_dropped_total") == 1
    assert world.metric("slates_published_total") == 1
