"""The gateway on a real cache server: paging, healing, outages, flips; and its OpenAPI fuzzed."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
import redis
import schemathesis
from feedrank_core.contracts.api import FeedResponse
from feedrank_core.contracts.bundle import Part
from feedrank_core.contracts.slates import Slate
from feedrank_core.contracts.topics import SLATES
from feedrank_core.runtime.bundle_store import BundleStore
from feedrank_core.runtime.bus_redis import RedisBus
from feedrank_core.runtime.home import Home
from feedrank_core.runtime.valkey import Role, valkey_command
from feedrank_gateway.adapters.memory_cache import MemoryCache
from feedrank_gateway.adapters.redis_cache import RedisCache
from feedrank_gateway.adapters.redis_pointer import RedisPointer
from feedrank_gateway.app import assemble
from feedrank_gateway.breaker import Breaker
from feedrank_gateway.bundle_watcher import BundleWatcher
from feedrank_gateway.ports import Cache, CacheUnavailableError
from gateway_world import FIRST, SECOND, GatewayWorld, candidates, write_bundle
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


class Server:
    """A cache server that can be killed and started again on its port."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.folder = folder
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> redis.Redis:
        command = valkey_command(Role.CACHE, port=self.port, folder=self.folder)
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        client = redis.Redis.from_url(self.url)
        for _ in range(200):
            with contextlib.suppress(redis.ConnectionError):
                client.ping()
                return client
            time.sleep(0.02)
        raise AssertionError("the cache server did not start")

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@pytest.fixture
def server(tmp_path) -> Iterator[Server]:
    server = Server(tmp_path)
    yield server
    server.kill()


class RealWorld(GatewayWorld):
    """The gateway of the fakes, but on a cache server; the bus stays a list."""

    def __init__(self, root: Path, url: str) -> None:
        super().__init__(root)
        self.real_cache = RedisCache(url, timeout_s=0.25, breaker=Breaker(cool_down_s=0.1))
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
        world.app.router.lifespan_context(world.app),
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
    client_of_cache = server.start()
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


async def test_a_flushed_cache_heals(server, tmp_path):
    cache = server.start()
    world = RealWorld(tmp_path / "bundles", server.url)
    BundleStore(tmp_path / "bundles").flip(FIRST)
    cache.set(f"cand:{FIRST}:ada", candidates(range(200)))
    async with _running(world) as client:
        assert _sources(await _feed(client)) == {"cached"}
        cache.flushall()
        feed = await _feed(client)
        assert _sources(feed) == {"global_popular"}
        assert feed["degraded"] == []
        cache.set(f"cand:{FIRST}:ada", candidates(range(200)))
        assert _sources(await _feed(client)) == {"cached"}


async def test_a_cache_that_dies_under_traffic_costs_no_request_and_is_taken_back(server, tmp_path):
    server.start().set(f"cand:{FIRST}:ada", candidates(range(200)))
    world = RealWorld(tmp_path / "bundles", server.url)
    BundleStore(tmp_path / "bundles").flip(FIRST)
    async with _running(world) as client:
        assert (await _feed(client))["degraded"] == []
        server.kill()
        start = time.perf_counter()
        for _ in range(50):
            assert (await _feed(client))["degraded"] == ["candidates", "served"]
        assert time.perf_counter() - start < 2.0
        server.start().set(f"cand:{FIRST}:ada", candidates(range(200)))

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

        async def healthy() -> bool:
            return not (await _feed(client))["degraded"]

        await _until(healthy)


async def test_a_hung_cache_costs_a_few_timeouts_then_none(server, tmp_path):
    server.start()
    world = RealWorld(tmp_path / "bundles", server.url)
    BundleStore(tmp_path / "bundles").flip(FIRST)
    async with _running(world) as client:
        await _feed(client)
        assert server.process
        with redis.Redis.from_url(server.url) as admin:
            admin.client_pause(3000)
        start = time.perf_counter()
        for _ in range(200):
            assert (await _feed(client))["degraded"]
        assert time.perf_counter() - start < 2.5


async def test_a_flip_is_followed_and_a_harmed_bundle_is_refused(server, tmp_path):
    cache = server.start()
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


def test_no_request_that_openapi_allows_or_forbids_makes_a_5xx(tmp_path):
    world = GatewayWorld(tmp_path)
    world.watcher.poll()
    schema = schemathesis.openapi.from_asgi("/openapi.json", world.app)
    operation = schema["/v1/users/{user_id}/feed"]["GET"]
    statuses: set[int] = set()
    modes = list(schemathesis.GenerationMode)

    @settings(
        max_examples=150,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
    @given(
        st.one_of(operation.as_strategy(generation_mode=mode) for mode in modes)  # type: ignore
    )
    def fuzz(case) -> None:
        answer = case.call()
        statuses.add(answer.status_code)
        assert answer.status_code < 500, answer.text

    fuzz()
    assert {200, 422} <= statuses


async def test_the_real_process_logs_every_slate_to_the_bus(tmp_path):
    cache, bus = Server(tmp_path / "cache"), Server(tmp_path / "bus")
    for server in (cache, bus):
        server.folder.mkdir()
    home, port = Home(tmp_path / "home"), Server(tmp_path).port
    write_bundle(home.bundles)
    BundleStore(home.bundles).flip(FIRST)
    environment = os.environ | {
        "FEEDRANK_HOME": str(home.root),
        "FEEDRANK_CACHE_URL": cache.url,
        "FEEDRANK_BUS_URL": bus.url,
        "FEEDRANK_GATEWAY_PORT": str(port),
    }
    command = [sys.executable, "-m", "feedrank_gateway", "serve", "--workers", "2"]
    cache.start().set(f"cand:{FIRST}:ada", candidates(range(200)))
    bus.start()
    with contextlib.ExitStack() as stack:
        stack.callback(cache.kill)
        stack.callback(bus.kill)
        process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        stack.callback(process.kill)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:

            async def ready() -> bool:
                with contextlib.suppress(httpx.TransportError):
                    return (await client.get("/readyz")).status_code == 200
                return False

            await _until(ready, within_s=30.0)
            feeds = [await _feed(client) for _ in range(10)]
        assert {feed["degraded"] == [] for feed in feeds} == {True}
        process.terminate()
        assert process.wait(timeout=15) in (0, -15)
        slates = [
            Slate.model_validate_json(record.value or b"")
            for record in itertools.takewhile(
                lambda record: record is not None, RedisBus(bus.url).broadcast(SLATES)
            )
            if record is not None
        ]
    assert {s.request_id for s in slates} == {feed["request_id"] for feed in feeds}
