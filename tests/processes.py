"""Real processes for the tests: Valkey servers, and our services as `feedrank up` starts them."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import redis
from feedrank_core.runtime.valkey import Role, valkey_command
from mirakuru import TCPExecutor

HOST = "127.0.0.1"
START_S = 60
"""Feast's import alone takes six on an idle machine."""
STOP_S = 30
PAUSE_S = 0.05


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


def until(happened: Callable[[], object], *, within_s: float = START_S) -> None:
    """Return once it has happened; fail where it does not."""
    deadline = time.monotonic() + within_s
    while not happened():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(PAUSE_S)


def fill(pipe: int) -> None:
    """Write until not one more byte fits."""
    os.set_blocking(pipe, False)
    try:
        while True:
            os.write(pipe, bytes(select.PIPE_BUF))
    except BlockingIOError:
        os.set_blocking(pipe, True)


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

    def has_ended(self) -> bool:
        """Whether the process is gone, by itself or by us."""
        return self._executor is None or not self._executor.running()

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

    def client(self) -> redis.Redis:
        return redis.Redis.from_url(self.url)

    def empty(self) -> None:
        with self.client() as client:
            client.flushall()


class Service:
    """One of our services as a process of its own; its log goes to a file in `folder`."""

    def __init__(self, folder: Path, module: str, *arguments: str, port: int, **settings: str):
        self.url = f"http://{HOST}:{port}"
        self.log = folder / f"{module}.log"
        self._command = [sys.executable, "-m", module, *arguments]
        self.environment = os.environ | {f"FEEDRANK_{k.upper()}": v for k, v in settings.items()}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; whether it is ready is another question."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command, env=self.environment, stdout=log, stderr=log
            )

    def readiness(self) -> tuple[int, str]:
        """Status and text of `/readyz`; 0 where nobody answers."""
        assert self.process and self.process.poll() is None, self.said()
        try:
            answer = httpx.get(f"{self.url}/readyz")
        except httpx.TransportError:
            return 0, ""
        return answer.status_code, answer.text

    def until_ready(self) -> None:
        """Return once it says that it can work."""
        until(lambda: self.readiness()[0] == 200)

    def until_it_answers(self) -> None:
        """Return once its probes answer, ready or not."""
        until(lambda: self.readiness()[0])

    def said(self) -> str:
        """Its log so far."""
        return self.log.read_text()

    def stop(self) -> int:
        """Stop it as `feedrank down` does; its exit code."""
        assert self.process
        self.process.terminate()
        try:
            return self.process.wait(STOP_S)
        finally:
            self.process.kill()

    @contextmanager
    def running(self) -> Iterator[Service]:
        """Started now, stopped cleanly in the end."""
        self.start()
        try:
            yield self
        except BaseException:
            if self.process:
                self.process.kill()
                self.process.wait()
            raise
        assert self.stop() in (0, -signal.SIGTERM), self.said()

    @contextmanager
    def held_at_its_first_line(self) -> Iterator[Service]:
        """A command that works up to the first line of its log, because nobody reads that.

        Let go in the end, it must end well.
        """
        reading, writing = os.pipe()
        fill(writing)
        with os.fdopen(reading, "rb") as log:
            self.process = subprocess.Popen(
                self._command, env=self.environment, stdout=subprocess.DEVNULL, stderr=writing
            )
            os.close(writing)
            try:
                yield self
                said = log.read()
                assert self.process.wait(STOP_S) == 0, said
            finally:
                self.process.kill()
                self.process.wait()
