"""Real servers for the tests: one of each role a session, emptied before each test."""

import os
import signal
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest
import redis
from feedrank_core.runtime.valkey import Role, valkey_command
from mirakuru import TCPExecutor

START_S = 10
HOST = "127.0.0.1"


class Server:
    """A Valkey server of one role, which a test may kill, start again or make hang."""

    def __init__(self, role: Role, folder: Path) -> None:
        self.port = free_port()
        self.url = f"redis://{HOST}:{self.port}/0"
        self._command = valkey_command(role, port=self.port, folder=folder)
        self._executor: TCPExecutor | None = None

    def start(self) -> None:
        self._executor = TCPExecutor(self._command, host=HOST, port=self.port, timeout=START_S)
        self._executor.start()

    def stop(self) -> None:
        if self._executor is not None:
            self._executor.stop()

    def kill(self) -> None:
        """As `kill -9` does: nothing is flushed, nobody is told."""
        assert self._executor is not None
        self._executor.kill()

    @property
    def pid(self) -> int:
        assert self._executor is not None and self._executor.process is not None
        return self._executor.process.pid

    @contextmanager
    def hang(self) -> Iterator[None]:
        """The server holds its connections and answers nothing."""
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)

    def empty(self) -> None:
        with redis.Redis.from_url(self.url) as client:
            client.flushall()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


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
def make_server() -> type[Server]:
    """For a test that kills its server."""
    return Server


@pytest.fixture
def feast_store() -> ModuleType:
    """`feature_repo.store`. Feast loosens the filters of warnings for whoever imports it."""
    with warnings.catch_warnings(action="ignore"):
        from feature_repo import store
    return store
