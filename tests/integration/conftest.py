"""Real servers for the tests: one of each role a session, emptied before each test."""

import uuid
import warnings
from collections.abc import Iterator
from functools import partial
from types import ModuleType

import pytest
import stream_running
from feedrank_core.runtime.bundle_store import BundleStore
from feedrank_core.runtime.bus_redis import RedisBus
from feedrank_core.runtime.home import Home
from feedrank_core.runtime.redis_clients import sync_client
from feedrank_core.runtime.valkey import Role
from feedrank_feature_store.adapters.memory_online import MemoryOnline
from gateway_world import FIRST, write_bundle
from integration.kafka_servers import BOOTSTRAP, OwnBroker, admin_of, require_kafka
from processes import Server, Service, free_port
from redis import Redis


@pytest.fixture(scope="session")
def _bus_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(Role.BUS, tmp_path_factory.mktemp("bus"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def _cache_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(Role.CACHE, tmp_path_factory.mktemp("cache"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def bus_server(_bus_process: Server) -> Server:
    """The bus server, empty."""
    _bus_process.empty()
    return _bus_process


@pytest.fixture
def cache_server(_cache_process: Server) -> Server:
    """The cache server, empty."""
    _cache_process.empty()
    return _cache_process


@pytest.fixture
def bus_url(bus_server: Server) -> str:
    """Where an empty bus listens."""
    return bus_server.url


@pytest.fixture
def cache_url(cache_server: Server) -> str:
    """Where an empty cache listens."""
    return cache_server.url


@pytest.fixture
def bus(bus_url: str) -> Iterator[RedisBus]:
    """An empty bus with its topics, where a module has no other."""
    bus = RedisBus(bus_url)
    bus.create_topics()
    yield bus
    bus.close()


@pytest.fixture
def cache(cache_url: str) -> Iterator[Redis]:
    """A patient client of an empty cache, where a module has no other."""
    with sync_client(cache_url) as client:
        yield client


@pytest.fixture
def online() -> MemoryOnline:
    """An online store of the stream."""
    return MemoryOnline()


@pytest.fixture
def started(tmp_path, bus, cache, online):
    """Runs a stream; leaving it is a kill: what it had not saved is gone."""
    return partial(stream_running.started, tmp_path, bus, cache, online)


@pytest.fixture(scope="module")
def own_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnBroker | None]:
    """A Kafka broker of ours; None where KAFKA_BOOTSTRAP names another."""
    require_kafka()
    if BOOTSTRAP:
        yield None
        return
    server = OwnBroker(tmp_path_factory.mktemp("kafka"))
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture
def kafka_url(own_broker: OwnBroker | None) -> Iterator[str]:
    """An empty place on the broker: names of its own, which go afterwards."""
    base = own_broker.url if own_broker else f"kafka://{BOOTSTRAP}"
    prefix = f"test-{uuid.uuid4().hex[:8]}"
    yield f"{base}/{prefix}"
    with admin_of(base) as admin:  # pyright: ignore[reportGeneralTypeIssues]
        ours = [name for name in admin.list_topics() if name.startswith(prefix)]
        if ours:
            admin.delete_topics(ours)


@pytest.fixture
def make_server() -> type[Server]:
    """For a test that kills its server."""
    return Server


@pytest.fixture
def feast_store() -> ModuleType:
    """`feature_repo.store`. Feast loosens the filters of warnings for whoever imports it."""
    with warnings.catch_warnings(action="ignore"):
        from feature_repo import store
    return store


@pytest.fixture(scope="module")
def intake(_bus_process: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The intake's real process on the bus server."""
    folder, port = tmp_path_factory.mktemp("intake"), free_port()
    service = Service(
        folder,
        "feedrank_ingestion",
        "serve",
        port=port,
        home=str(folder),
        bus_url=_bus_process.url,
        ingestion_port=str(port),
    )
    with service.running():
        service.until_ready()
        yield service


@pytest.fixture(scope="module")
def gateway(
    _bus_process: Server, _cache_process: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """The gateway's real process on both servers, with the bundle of `gateway_world`."""
    folder, port = tmp_path_factory.mktemp("gateway"), free_port()
    bundles = Home(folder).bundles
    write_bundle(bundles)
    BundleStore(bundles).flip(FIRST)
    service = Service(
        folder,
        "feedrank_gateway",
        "serve",
        port=port,
        home=str(folder),
        bus_url=_bus_process.url,
        cache_url=_cache_process.url,
        gateway_port=str(port),
        gateway_workers="2",
    )
    with service.running():
        service.until_ready()
        yield service
