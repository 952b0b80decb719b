"""A real Kafka broker for the tests: the one that KAFKA_BOOTSTRAP names, else one of our own."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from feedrank_core.runtime.bus import BusUnavailableError
from feedrank_core.runtime.bus_kafka import KafkaBus
from feedrank_core.runtime.kafka_broker import BrokerUnavailableError, KafkaBroker, jars
from processes import free_port

BOOTSTRAP = os.environ.get("KAFKA_BOOTSTRAP")
START_S = 60


def require_kafka() -> None:
    """Skip, with the reason, where no broker can be had."""
    if not BOOTSTRAP:
        try:
            jars()
        except BrokerUnavailableError as error:
            pytest.skip(f"{error}, and KAFKA_BOOTSTRAP names no broker")


class OwnBroker:
    """A broker of ours, which a test may kill, start again or make hang."""

    def __init__(self, folder: Path) -> None:
        self.broker = KafkaBroker(folder, free_port(), free_port())
        self.url = self.broker.url
        self._process: subprocess.Popen | None = None

    def start(self) -> None:
        self.broker.prepare()
        with (self.broker.folder / "broker.log").open("ab") as log:
            self._process = subprocess.Popen(
                self.broker.command(), stdout=log, stderr=log, cwd=self.broker.folder
            )
        bus = KafkaBus(self.url, timeout_s=1)
        deadline = time.monotonic() + START_S
        while True:
            try:
                bus.ping()
                break
            except BusUnavailableError:
                assert self._process.poll() is None, (
                    self.broker.folder / "broker.log"
                ).read_text()[-2000:]
                assert time.monotonic() < deadline
        bus.close()

    def kill(self) -> None:
        """As `kill -9` does. Blocks until the port is free."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    @contextmanager
    def hang(self) -> Iterator[None]:
        """The broker holds its connections and answers nothing."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self._process.pid, signal.SIGCONT)
