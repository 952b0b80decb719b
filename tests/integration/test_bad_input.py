"""Everything bad that can be sent, sent to the real processes: refused by name, nothing lost."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import orjson
import pytest
from feedrank_core.contracts.api import MAX_BODY_BYTES
from feedrank_core.contracts.bundle import MANIFEST, Part
from feedrank_core.contracts.redis_keys import CURRENT_BUNDLE
from feedrank_core.contracts.topics import INTERACTIONS
from feedrank_core.runtime.bundle_store import BundleStore
from feedrank_core.runtime.bus_redis import RedisBus
from feedrank_core.runtime.home import Home
from feedrank_core.runtime.probes import PORT_IN_USE
from feedrank_core.runtime.valkey import Role
from gateway_world import FIRST, SECOND, write_bundle
from processes import HOST, Server, Service, free_port, until

NOW = datetime.now(UTC)
CHUNK = bytes(1 << 20)


def click(event_id: str = "e1", **changes: Any) -> dict[str, Any]:
    return {
        "event_id": event_id,
        "event_type": "click",
        "user_id": "u1",
        "item_id": "i1",
        "occurred_at": NOW.isoformat(),
    } | changes


def post(service: Service, body: bytes | Iterator[bytes]) -> httpx.Response:
    return httpx.post(f"{service.url}/v1/events", content=body, timeout=30)


def held(bus_url: str) -> list[str]:
    """Ids of the interactions on the bus."""
    bus = RedisBus(bus_url)
    with bus.consumer([INTERACTIONS], group="test", member="m") as consumer:
        records = consumer.poll(max_records=10_000, timeout_s=0.0)
    bus.close()
    return sorted(orjson.loads(r.value or b"")["event_id"] for r in records)


BAD_EVENTS = {
    "unknown type": ({"event_type": "stare"}, "event_type"),
    "type that is no text": ({"event_type": 7}, "event_type"),
    "id of 0 characters": ({"user_id": ""}, "user_id"),
    "id of 129 characters": ({"item_id": "x" * 129}, "item_id"),
    "id with a control character": ({"event_id": "a\u0007b"}, "event_id"),
    "id that is a number": ({"user_id": 12}, "user_id"),
    "position that is text": ({"position": "3"}, "position"),
    "position below 0": ({"position": -1}, "position"),
    "time far in the future": ({"occurred_at": "2999-01-01T00:00:00Z"}, "occurred_at"),
    "time a little too far ahead": (
        {"occurred_at": (NOW + timedelta(hours=1)).isoformat()},
        "occurred_at",
    ),
    "naive time": ({"occurred_at": "2026-01-01T00:00:00"}, "occurred_at"),
    "time that is a number": ({"occurred_at": 1_700_000_000}, "occurred_at"),
    "view without dwell": ({"event_type": "view"}, "dwell_s"),
    "negative dwell": ({"event_type": "view", "dwell_s": -1}, "dwell_s"),
    "unknown field": ({"mood": "good"}, "mood"),
}


@pytest.mark.parametrize(("change", "field"), BAD_EVENTS.values(), ids=BAD_EVENTS)
def test_a_bad_event_is_refused_by_field_and_its_neighbours_are_held(
    intake: Service, bus_url: str, change: dict[str, Any], field: str
) -> None:
    events = [click("before"), click("bad") | change, click("after")]
    answer = post(intake, orjson.dumps({"events": events}))
    assert (answer.status_code, answer.json()["accepted"]) == (202, 2)
    [refused] = answer.json()["rejected"]
    assert (refused["index"], refused["reason"].partition(":")[0]) == (1, field)
    assert held(bus_url) == ["after", "before"]


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_no_number_beyond_the_finite_is_held(intake: Service, bus_url: str, number: str) -> None:
    event = orjson.dumps(click(event_type="view", dwell_s=7.5))
    body = b'{"events": [%s]}' % event.replace(b"7.5", number.encode())
    answer = post(intake, body)
    assert answer.status_code == 400 or "dwell_s" in answer.json()["rejected"][0]["reason"]
    assert held(bus_url) == []


def test_an_event_sent_twice_is_held_once(intake: Service, bus_url: str) -> None:
    answer = post(intake, orjson.dumps({"events": [click("same"), click("same")]}))
    assert (answer.status_code, answer.json()["accepted"]) == (202, 2)
    assert held(bus_url) == ["same"]


BAD_BODIES = {
    "no JSON": (b"{", 400, "body"),
    "nothing": (b"", 400, "body"),
    "no UTF-8": (b"\xff\xfe", 400, "body"),
    "nested too deep": (b"[" * 100_000, 400, "body"),
    "a list": (b"[]", 422, "events"),
    "null": (b"null", 422, "events"),
    "no events": (b'{"events": []}', 422, "events"),
    "events that are no list": (b'{"events": {}}', 422, "events"),
    "a field too many": (b'{"events": [{}], "more": 1}', 422, "more"),
    "1001 events": (orjson.dumps({"events": [{}] * 1001}), 422, "events"),
}


@pytest.mark.parametrize(("body", "status", "field"), BAD_BODIES.values(), ids=BAD_BODIES)
def test_a_body_that_is_no_batch_is_a_problem_that_names_the_field(
    intake: Service, body: bytes, status: int, field: str
) -> None:
    answer = post(intake, body)
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.status_code, answer.json()["field"]) == (status, field)
    assert answer.json()["remedy"]


@pytest.mark.parametrize("is_declared", [True, False])
def test_a_body_of_64_megabytes_is_refused_and_the_intake_goes_on(
    intake: Service, bus_url: str, is_declared: bool
) -> None:
    with httpx.Client(base_url=intake.url, timeout=30) as client:
        try:
            body = CHUNK * 64 if is_declared else (CHUNK for _ in range(64))
            answer = client.post("/v1/events", content=body)
        except httpx.WriteError:
            pass  # the server need not read to the end before it hangs up
        else:
            assert answer.status_code == 413
            assert str(MAX_BODY_BYTES) in answer.json()["detail"]
            assert answer.json()["field"] == "body"
    assert post(intake, orjson.dumps({"events": [click("next")]})).status_code == 202
    assert held(bus_url) == ["next"]


BAD_IDS = {"empty": "", "129": "x" * 129, "control": "a%07b", "line end": "a%0Ab", "nul": "%00"}


@pytest.mark.parametrize("bad", BAD_IDS.values(), ids=BAD_IDS)
@pytest.mark.parametrize("kind", ["item", "user"])
def test_a_bad_id_in_a_path_is_refused_by_name(intake: Service, kind: str, bad: str) -> None:
    answer = httpx.put(f"{intake.url}/v1/{kind}s/{bad}", json={})
    assert (answer.status_code, answer.json()["field"]) == (422, f"{kind}_id")


@pytest.mark.parametrize("good", ["x" * 128, "video%2F8812", "a%20b", "%F0%9F%99%82", ":batch"])
def test_any_id_inside_the_rule_can_be_published_under_its_path(intake: Service, good: str) -> None:
    assert httpx.put(f"{intake.url}/v1/users/{good}", json={"country": "NL"}).status_code == 202


@pytest.mark.parametrize("limit", ["0", "-1", "1000000000", "101", "1.5", "", "ten"])
def test_a_limit_out_of_range_is_refused_by_name(gateway: Service, limit: str) -> None:
    answer = httpx.get(f"{gateway.url}/v1/users/u/feed", params={"limit": limit})
    assert (answer.status_code, answer.json()["field"]) == (422, "limit")


@pytest.mark.parametrize("bad", BAD_IDS.values(), ids=BAD_IDS)
def test_a_feed_of_a_bad_id_is_refused_by_name(gateway: Service, bad: str) -> None:
    answer = httpx.get(f"{gateway.url}/v1/users/{bad}/feed")
    assert (answer.status_code, answer.json()["field"]) == (422, "user_id")


def test_forged_and_stale_cursors_are_refused_and_a_new_session_begins(
    gateway: Service, cache_server: Server
) -> None:
    feed = f"{gateway.url}/v1/users/u/feed"
    cursor = httpx.get(feed).json()["next_cursor"]
    forged = ("B" if cursor[0] == "A" else "A") + cursor[1:]
    for bad, user in ((forged, "u"), ("x", "u"), (cursor, "somebody else")):
        answer = httpx.get(f"{gateway.url}/v1/users/{user}/feed", params={"cursor": bad})
        assert (answer.status_code, answer.json()["field"]) == (400, "cursor")
    cache_server.empty()
    answer = httpx.get(feed, params={"cursor": cursor})
    assert (answer.status_code, answer.json()["field"]) == (410, "cursor")
    assert "without a cursor" in answer.json()["remedy"]
    assert httpx.get(feed).status_code == 200


@pytest.mark.parametrize("harmed", [Part.ITEM_KEYS, Part.POPULAR, MANIFEST])
def test_a_harmed_bundle_is_named_and_the_one_before_goes_on_serving(
    make_gateway, cache_server: Server, harmed: str
) -> None:
    service, home = make_gateway
    write_bundle(home.bundles)
    BundleStore(home.bundles).flip(FIRST)
    path = write_bundle(home.bundles, SECOND).path / harmed
    if harmed == MANIFEST:
        manifest = orjson.loads(path.read_bytes()) | {"schema_version": 99}
        path.write_bytes(orjson.dumps(manifest))
    else:
        path.write_bytes(path.read_bytes() + b"\n")
    with service.running(), cache_server.client() as cache:
        service.until_ready()
        cache.set(CURRENT_BUNDLE.key(), SECOND)

        def feed() -> dict[str, Any]:
            return httpx.get(f"{service.url}/v1/users/u/feed").raise_for_status().json()

        until(lambda: feed()["degraded"] == ["bundle"])
        assert feed()["bundle"] == FIRST
        assert ("schema_version is 99" if harmed == MANIFEST else str(path)) in service.said()
    with service.running():
        service.until_ready()
        assert (feed()["bundle"], feed()["degraded"]) == (FIRST, ["bundle"])


@pytest.fixture
def make_gateway(tmp_path, bus_url: str, cache_url: str) -> tuple[Service, Home]:
    """A gateway that is not started yet, and its home."""
    port = free_port()
    settings = {"home": str(tmp_path), "gateway_port": str(port), "gateway_poll_s": "0.05"}
    servers = {"bus_url": bus_url, "cache_url": cache_url}
    return Service(
        tmp_path, "feedrank_gateway", "serve", port=port, **settings, **servers
    ), Home(tmp_path)  # fmt: skip


PROCESSES = {
    "gateway": ("feedrank_gateway", "serve", "gateway_port"),
    "intake": ("feedrank_ingestion", "serve", "ingestion_port"),
    "lake sink": ("feedrank_ingestion", "lake-sink", "lake_sink_port"),
    "feature store": ("feedrank_feature_store", "serve", "feature_store_port"),
}


@pytest.mark.parametrize("name", PROCESSES)
def test_a_process_starts_without_redis_says_what_it_lacks_and_takes_it_up(name, tmp_path) -> None:
    module, verb, setting = PROCESSES[name]
    port = free_port()
    for role in Role:
        (tmp_path / role).mkdir()
    bus, cache = (Server(role, tmp_path / role) for role in Role)
    service = Service(
        tmp_path,
        module,
        verb,
        port=port,
        home=str(tmp_path),
        bus_url=bus.url,
        cache_url=cache.url,
        **{setting: str(port)},
    )
    write_bundle(Home(tmp_path).bundles)
    BundleStore(Home(tmp_path).bundles).flip(FIRST)
    with service.running():
        service.until_it_answers()
        assert httpx.get(f"{service.url}/healthz").status_code == 200
        if name == "gateway":
            feed = httpx.get(f"{service.url}/v1/users/u/feed").json()
            assert feed["degraded"] == ["candidates", "served"]
        else:
            status, reason = service.readiness()
            assert status == 503
            assert "bus" in reason
        if name == "intake":
            refused = post(service, orjson.dumps({"events": [click()]}))
            assert (refused.status_code, bool(refused.headers["retry-after"])) == (503, True)
        for server in (bus, cache):
            server.start()
        service.until_ready()
        if name == "intake":
            assert post(service, orjson.dumps({"events": [click()]})).status_code == 202
        if name == "gateway":
            # A cache that nobody has filled: the keeper, or a day, names the bundle in it at last.
            feed_url = f"{service.url}/v1/users/u/feed"
            until(lambda: httpx.get(feed_url).json()["degraded"] == ["candidates"])
            with cache.client() as client:
                client.set(CURRENT_BUNDLE.key(), FIRST)
            until(lambda: not httpx.get(feed_url).json()["degraded"])
    for server in (bus, cache):
        server.stop()


AS_OF = "--as-of 2026-03-01T00:00:00Z"
COMMANDS = {
    "pairs": ("feedrank_trainer", f"pairs {AS_OF} --run .", "trainer_port"),
    "train": ("feedrank_trainer", f"train {AS_OF} --run .", "trainer_port"),
    "rank": ("feedrank_batch_ranker", "rank --run .", "batch_ranker_port"),
    "publish": ("feedrank_batch_ranker", "publish --run .", "batch_ranker_port"),
}


@pytest.mark.parametrize("name", [*PROCESSES, *COMMANDS])
def test_a_port_in_use_ends_the_start_with_the_address(name, tmp_path, bus_server: Server) -> None:
    module, verb, setting = (PROCESSES | COMMANDS)[name]
    done = subprocess.run(
        [sys.executable, "-m", module, *verb.split()],
        env=Service(
            tmp_path,
            module,
            verb,
            port=bus_server.port,
            home=str(tmp_path),
            **{setting: str(bus_server.port)},
        ).environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == PORT_IN_USE
    assert f"{HOST}:{bus_server.port} is in use" in done.stderr
