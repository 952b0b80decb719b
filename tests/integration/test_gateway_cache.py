"""The gateway on a real cache server: paging, healing, outages, flips."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from feedrank_core.contracts.api import FeedResponse
from feedrank_core.contracts.bundle import Part
from feedrank_core.runtime.bundle_store import BundleStore
from feedrank_core.runtime.valkey import Role
from feedrank_gateway.adapters.memory_cache import MemoryCache
from feedrank_gateway.adapters.redis_cache import RedisCache
from feedrank_gateway.adapters.redis_pointer import RedisPointer
from feedrank_gateway.app import assemble
from feedrank_gateway.breaker import MAX_FAILURES, Breaker
from feedrank_gateway.bundle_watcher import BundleWatcher
from feedrank_gateway.ports import Cache, CacheUnavailableError
from gateway_world import FIRST, SECOND, GatewayWorld, candidates, write_bundle
from processes import Server


@pytest.fixture
def server(tmp_path) -> Iterator[Server]:
    """A cache server that is not started yet."""
    server = Server(Role.CACHE, tmp_path)
    yield server
    server.stop()


class RealWorld(GatewayWorld):
    """The gateway of the fakes, but on a cache server; the bus stays a list."""

    def __init__(self, root: Path, url: str, breaker: Breaker | None = None) -> None:
        super().__init__(root)
        self.real_cache = RedisCache(
            url, timeout_s=0.25, breaker=breaker or Breaker(cool_down_s=0.1)
        )
        store = BundleStore(root)
        self.watcher = BundleWatcher(
            store,
            RedisPointer(url, store, timeout_s=0.25),
            poll_s=0.02,
            on_swap=lambda outcome: (
                self.metrics.counter("bundle_swaps_total").labels(outcome).inc()
            ),
        )
        self.app = assemble(self.real_cache, self.watcher, self.slates, self.cursors, self.metrics)


@contextlib.asynccontextmanager
async def _running(world: RealWorld) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(world.app)
    async with (
        world.app.app.router.lifespan_context(world.app.app),
        httpx.AsyncClient(transport=transport, base_url="http://gateway.test") as client,
    ):
        yield client


async def _feed(client: httpx.AsyncClient, user: str = "ada", **params) -> dict:
    answer = await client.get(f"/v1/users/{user}/feed", params=params)
    assert answer.status_code == 200, answer.text
    return FeedResponse.model_validate_json(answer.content).model_dump(mode="json")


def _sources(feed: dict) -> set[str]:
    return {item["source"] for item in feed["items"]}


async def _until(check, *, within_s: float = 5.0) -> None:
    deadline = time.monotonic() + within_s
    while not await check():
        assert time.monotonic() < deadline, "did not happen in time"
        await asyncio.sleep(0.02)


async def test_pages_never_repeat_and_served_lists_expire(server, tmp_path):
    server.start()
    client_of_cache = server.client()
    world = RealWorld(tmp_path / "bundles", server.url)
    client_of_cache.mset({"bundle:current": FIRST, f"cand:{FIRST}:ada": candidates(range(200))})
    async with _running(world) as client:
        shown, cursor = [], None
        for _ in range(6):
            feed = await _feed(client, limit=30, **({"cursor": cursor} if cursor else {}))
            shown += [item["item_id"] for item in feed["items"]]
            cursor = feed["next_cursor"]
        assert len(shown) == len(set(shown)) == 180
        assert 0 < client_of_cache.ttl(f"served:ada:{feed['session_id']}") <= 6 * 3600


async def test_a_flushed_cache_degrades_to_popular_until_candidates_are_back(server, tmp_path):
    server.start()
    cache = server.client()
    world = RealWorld(tmp_path / "bundles", server.url)
    BundleStore(tmp_path / "bundles").flip(FIRST)
    held = {"bundle:current": FIRST, f"cand:{FIRST}:ada": candidates(range(200))}
    cache.mset(held)
    async with _running(world) as client:
        assert _sources(await _feed(client)) == {"cached"}
        assert (await _feed(client, "who-is-new"))["degraded"] == []
        cache.flushall()

        async def degraded() -> bool:
            feed = await _feed(client)
            assert _sources(feed) == {"global_popular"}
            return feed["degraded"] == ["candidates"]

        await _until(degraded)
        cache.mset(held)
        assert _sources(await _feed(client)) == {"cached"}

        async def healthy() -> bool:
            return not (await _feed(client, "who-is-new"))["degraded"]

        await _until(healthy)


async def test_a_cache_that_dies_under_traffic_costs_no_request_and_is_taken_back(server, tmp_path):
    server.start()
    server.client().set(f"cand:{FIRST}:ada", candidates(range(200)))
    world = RealWorld(tmp_path / "bundles", server.url)
    BundleStore(tmp_path / "bundles").flip(FIRST)
    async with _running(world) as client:
        assert (await _feed(client))["degraded"] == []
        server.kill()
        for _ in range(50):
            assert (await _feed(client))["degraded"] == ["candidates", "served"]
        server.start()
        server.client().set(f"cand:{FIRST}:ada", candidates(range(200)))

        async def healthy() -> bool:
            return not (await _feed(client))["degraded"]

        await _until(healthy)
        assert _sources(await _feed(client)) == {"cached"}


async def test_a_cache_that_is_absent_at_the_start_stops_nothing(server, tmp_path):
    world = RealWorld(tmp_path / "bundles", server.url)
    BundleStore(tmp_path / "bundles").flip(FIRST)
    async with _running(world) as client:
        assert (await client.get("/readyz")).status_code == 200
        assert (await _feed(client))["degraded"] == ["candidates", "served"]
        server.start()
        server.client().set("bundle:current", FIRST)

        async def healthy() -> bool:
            return not (await _feed(client))["degraded"]

        await _until(healthy)


async def test_a_hung_cache_costs_three_timeouts_then_none(server, tmp_path, monkeypatch):
    server.start()
    server.client().set("bundle:current", FIRST)
    cool_down_that_never_ends = Breaker(clock=lambda: 0.0)
    world = RealWorld(tmp_path / "bundles", server.url, cool_down_that_never_ends)
    BundleStore(tmp_path / "bundles").flip(FIRST)
    resp, asked = world.real_cache._redis, []
    call = resp.call

    async def counted(*command):
        asked.append(command[0])
        return await call(*command)

    async with _running(world) as client:
        assert not (await _feed(client))["degraded"]
        monkeypatch.setattr(resp, "call", counted)
        with server.hang():
            for _ in range(20):
                assert (await _feed(client))["degraded"] == ["candidates", "served"]
    assert asked == ["MGET"] * MAX_FAILURES


async def test_a_flip_is_followed_and_a_harmed_bundle_is_refused(server, tmp_path):
    server.start()
    cache = server.client()
    root = tmp_path / "bundles"
    world = RealWorld(root, server.url)
    cache.set("bundle:current", FIRST)
    write_bundle(root, SECOND)
    async with _running(world) as client:
        first = await _feed(client)
        assert first["bundle"] == FIRST
        cache.set("bundle:current", SECOND)

        async def flipped() -> bool:
            return (await _feed(client))["bundle"] == SECOND

        await _until(flipped)
        second = await _feed(client, cursor=first["next_cursor"])
        assert not {i["item_id"] for i in first["items"]} & {i["item_id"] for i in second["items"]}

        third = "20260103T000000-00000003"
        write_bundle(root, third)
        with (root / third / Part.CATEGORIES.value).open("ab") as file:
            file.write(b" ")
        cache.set("bundle:current", third)

        async def refused() -> bool:
            return world.metric("bundle_swaps_total", outcome="refused") == 1

        await _until(refused)
        assert (await _feed(client))["bundle"] == SECOND


@pytest.fixture(params=["memory", "redis"])
def cache_twin(request, server):
    if request.param == "memory":
        return MemoryCache()
    server.start()
    return RedisCache(server.url, timeout_s=0.25)


async def test_both_caches_hold_what_was_served(cache_twin: Cache):
    assert (await cache_twin.read("b", "u", None)).served is None
    await cache_twin.append_served("u", "s", b"12345678", is_first=True)
    await cache_twin.append_served("u", "s", b"abcdefgh", is_first=False)
    read = await cache_twin.read("b", "u", "s")
    assert (read.candidates, read.seen, read.served) == (None, None, b"12345678abcdefgh")
    assert (await cache_twin.read("b", "u", "other")).served is None
    await cache_twin.close()


async def test_both_caches_say_when_they_are_down(server):
    memory, real = MemoryCache(), RedisCache(server.url, timeout_s=0.25)
    memory.down = True
    for cache in (memory, real):
        with pytest.raises(CacheUnavailableError):
            await cache.read("b", "u", None)
        with pytest.raises(CacheUnavailableError):
            await cache.append_served("u", "s", b"12345678", is_first=True)
        await cache.close()
