"""The data path of a measurement: a bus, an intake and a lake sink in processes of its own."""

from __future__ import annotations

import math
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import httpx
import psutil
from feedrank_core.contracts.topics import IMPRESSIONS, INTERACTIONS
from feedrank_core.runtime.bus_open import is_kafka, open_bus
from feedrank_core.runtime.lake import Lake
from rich.console import Console

from feedrank_cli.bench.report import BenchCannotRun
from feedrank_cli.demo import free_ports, own_settings
from feedrank_cli.errors import CommandError
from feedrank_cli.readiness import READY, check
from feedrank_cli.roster import Process, roster
from feedrank_cli.up import BusKind, fetch_broker, with_bus

BUS, INTAKE, SINK = "bus", "ingestion", "lake_sink"
EVENT_TOPICS = (INTERACTIONS, IMPRESSIONS)
START_S = 120.0
STANDSTILL_S = 120.0
"""Longer than a killed sink is kept out of its group."""
LOOK_S = 0.02


class DataPath:
    """Bus, intake and lake sink below one folder; what is killed starts again where it stood.

    A context manager: it waits until all are ready and leaves no process behind. `environment`
    is given to each on top of the settings. Raises: BenchCannotRun.
    """

    def __init__(
        self, folder: Path, kind: BusKind, environment: Mapping[str, str] | None = None
    ) -> None:
        settings = own_settings(folder).model_copy(
            update={"kafka_controller_port": free_ports(1)[0]}
        )
        self.settings = with_bus(settings, kind)
        self.lake_root = self.settings.place.lake
        self.url = f"http://127.0.0.1:{settings.ingestion_port}"
        self._environment = dict(environment or {})
        self._logs = settings.place.logs
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        try:
            fetch_broker(self.settings, Console(stderr=True))
        except CommandError as error:
            raise BenchCannotRun(str(error)) from error
        known = {p.name: p for p in roster(self.settings)}
        self._processes: dict[str, Process] = {name: known[name] for name in (BUS, INTAKE, SINK)}
        for folder in (self._logs, self.settings.place.run / BUS):
            folder.mkdir(parents=True, exist_ok=True)
        try:
            for name in self._processes:
                self.start(name)
                self.wait_ready(name)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for name in (SINK, INTAKE, BUS):
            if name in self._children:
                self.kill(name)

    def start(self, name: str) -> None:
        """Start a process; it may not be ready yet."""
        with (self._logs / f"{name}.log").open("ab") as log:
            self._children[name] = subprocess.Popen(
                self._processes[name].command,
                env=os.environ | self.settings.environment() | self._environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def kill(self, name: str) -> None:
        """As `kill -9` does: nothing is flushed, nobody is told. Blocks until it is gone."""
        child = self._children[name]
        child.kill()
        child.wait()

    @contextmanager
    def stopped(self, name: str) -> Iterator[None]:
        """The process holds its connections and answers nothing."""
        pid = self.pid(name)
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def pid(self, name: str) -> int:
        """Its process id at present."""
        return self._children[name].pid

    def rss_bytes(self, name: str) -> int:
        """Its resident memory."""
        return psutil.Process(self.pid(name)).memory_info().rss

    def cpu_s(self, name: str) -> float:
        """The processor time that it took since it started."""
        times = psutil.Process(self.pid(name)).cpu_times()
        return times.user + times.system

    def wait_port(self, name: str) -> float:
        """The monotonic instant at which its port was open. Raises: BenchCannotRun."""
        address = ("127.0.0.1", self._processes[name].port)
        for _ in self._patiently(name):
            try:
                socket.create_connection(address, 1).close()
                return time.monotonic()
            except OSError:
                continue
        raise AssertionError

    def wait_ready(self, name: str) -> float:
        """The monotonic instant at which it could do its work. Raises: BenchCannotRun."""
        for _ in self._patiently(name):
            if check(self.settings, self._processes[name]) == READY:
                return time.monotonic()
        raise AssertionError

    def wait_open(self, name: str, listened_at: float) -> float:
        """The monotonic instant at which what listens could take anything. Raises: BenchCannotRun.

        A Redis bus listens long before it has read its file; Kafka reads first.
        """
        is_reading = name == BUS and not is_kafka(self.settings.bus_url)
        return self.wait_ready(name) if is_reading else listened_at

    def sink_metric(self, name: str) -> float:
        """One of the sink's metrics over all labels; 0 where it does not answer."""
        url = f"http://127.0.0.1:{self.settings.lake_sink_port}/metrics"
        try:
            text = httpx.get(url, timeout=2, trust_env=False).text
        except httpx.HTTPError:
            return 0.0
        start = f"feedrank_ingestion_{name}{{"
        return sum(float(x.rsplit(" ", 1)[1]) for x in text.splitlines() if x.startswith(start))

    def lag(self) -> int:
        """Events on the bus that are not in the lake. Raises: BusUnavailableError."""
        bus, lake = open_bus(self.settings.bus_url), Lake(self.lake_root)
        try:
            ends = sum(sum(bus.end_offsets(topic).values()) for topic in EVENT_TOPICS)
            return ends - sum(sum(lake.positions(t.name).values()) for t in EVENT_TOPICS)
        finally:
            bus.close()

    def wait_drained(self) -> None:
        """Return once the lake holds all that the bus does. Raises: BenchCannotRun."""
        fewest, moved_at = math.inf, time.monotonic()
        while left := self.lag():
            if left < fewest:
                fewest, moved_at = left, time.monotonic()
            if time.monotonic() - moved_at > STANDSTILL_S:
                raise BenchCannotRun(
                    f"{left} events are not in the lake, and none came in {STANDSTILL_S:.0f} s"
                )
            time.sleep(10 * LOOK_S)

    def _patiently(self, name: str) -> Iterator[None]:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            yield
            if self._children[name].poll() is not None:
                break
            time.sleep(LOOK_S)
        last = (self._logs / f"{name}.log").read_text(errors="replace")[-1000:]
        raise BenchCannotRun(f"{name} did not start within {START_S:.0f} s: {last}")
