"""The cached feed against a bare endpoint with one Redis GET: same load, same run, same workers."""

from __future__ import annotations

import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import redis
from feedrank_core.runtime.home import Home
from feedrank_core.runtime.valkey import Role, valkey_command

from feedrank_cli.bench import feed_data
from feedrank_cli.bench.report import BenchCannotRun, Report

NAME = "cached_feed"
HELP = "p99 of the feed against a bare FastAPI endpoint with one Redis GET, at 1,000 requests/s"
RATE = 1_000
WORKERS = 2
MAX_P99_RATIO = 2.5
MIN_SHARE_HELD = 0.99
VEGETA = "github.com/tsenart/vegeta/v12@v12.13.0"

_FLOOR = (
    "from feedrank_core.runtime.serving import serve;"
    "serve('feedrank_cli.bench.bare_endpoint:create', '127.0.0.1', {port}, {workers})"
)


def run(home: Home, *, quick: bool, seed: int) -> Report:
    """Interleave rounds against the floor and the gateway; compare the medians of their p99.

    Everything runs in a folder of its own; `home` is left alone. Raises: BenchCannotRun.
    """
    num_users, num_items = (10_000, 100_000) if quick else (100_000, 1_000_000)
    rounds, seconds = (3, 4) if quick else (7, 10)
    vegeta, report = _vegeta(), Report(NAME, seed)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="feedrank-bench-")))
        own = Home(folder)
        own.bundles.mkdir()
        feed_data.write_bundle(own.bundles, num_items=num_items, seed=seed)
        system = _System(own, stack)
        feed_data.fill_cache(
            system.cache_url, own.bundles, num_users=num_users, seed=seed, answer=b"{}"
        )
        ports = {"floor": system.start_floor(), "gateway": system.start_gateway()}
        system.give_floor_true_answers(ports["gateway"], num_users)
        results: dict[str, list[dict[str, Any]]] = {name: [] for name in ports}
        for port in ports.values():
            _attack(vegeta, port, num_users, seconds=3, folder=folder)  # warm up
        cpu_s: defaultdict[tuple[str, str], float] = defaultdict(float)
        for _ in range(rounds):
            for name, port in ports.items():
                before = system.cpu_s()
                results[name].append(_attack(vegeta, port, num_users, seconds, folder))
                for part, after in system.cpu_s().items():
                    cpu_s[name, part] += after - before[part]
        for name in ("slates_dropped_total", "degraded_total"):
            report.figure(name.removesuffix("_total"), _counted(ports["gateway"], name))
    _fill(report, results, num_users, num_items)
    us_per_feed = {names: s / (rounds * seconds * RATE) * 1e6 for names, s in cpu_s.items()}
    report.figure("cpu_us_per_feed", us_per_feed["gateway", "gateway"])
    report.figure("bus_cpu_us_per_feed", us_per_feed["gateway", "bus"])
    report.floor("cpu_us_per_feed", us_per_feed["floor", "floor"])
    return report


def _fill(
    report: Report, results: dict[str, list[dict[str, Any]]], num_users: int, num_items: int
) -> None:
    def median(name: str, quantile: str) -> float:
        return statistics.median(r["latencies"][quantile] / 1e6 for r in results[name])

    ours = results["gateway"]
    for quantile in ("50th", "95th", "99th"):
        report.figure(f"p{quantile[:2]}_ms", median("gateway", quantile))
        report.floor(f"p{quantile[:2]}_ms", median("floor", quantile))
    report.figure("p99_ratio", median("gateway", "99th") / median("floor", "99th"))
    report.figure("requests_per_s", min(r["throughput"] for r in ours))
    report.figure("success_share", min(r["success"] for r in ours))
    report.floor("requests_per_s", min(r["throughput"] for r in results["floor"]))
    report.figure("users", num_users)
    report.figure("items", num_items)
    report.figure("workers", WORKERS)
    report.bound("p99_ratio", "<=", MAX_P99_RATIO)
    report.bound("requests_per_s", ">=", MIN_SHARE_HELD * RATE)
    report.bound("success_share", ">=", 1.0)
    report.bound("slates_dropped", "<=", 0)
    report.bound("degraded", "<=", 0)


class _System:
    """A bus, a cache, the floor and the gateway, ended in reverse order."""

    def __init__(self, home: Home, stack: ExitStack) -> None:
        self._stack = stack
        self._processes: dict[str, psutil.Process] = {}
        self._log = stack.enter_context((home.root / "log").open("wb"))
        self.bus_url, self.cache_url = (
            self._start_server(home, role) for role in (Role.BUS, Role.CACHE)
        )
        self._environment = os.environ | {
            "FEEDRANK_HOME": str(home.root),
            "FEEDRANK_BUS_URL": self.bus_url,
            "FEEDRANK_CACHE_URL": self.cache_url,
        }

    def start_floor(self) -> int:
        """Start the bare endpoint; its port."""
        port = _free_port()
        self._start("floor", [sys.executable, "-c", _FLOOR.format(port=port, workers=WORKERS)])
        return _wait_ready(port)

    def start_gateway(self) -> int:
        """Start the gateway; its port."""
        port = _free_port()
        self._environment["FEEDRANK_GATEWAY_PORT"] = str(port)
        serve = ("-m", "feedrank_gateway", "serve", "--workers", str(WORKERS))
        self._start("gateway", [sys.executable, *serve])
        return _wait_ready(port)

    def give_floor_true_answers(self, port: int, num_users: int) -> None:
        """Let the floor send as many bytes as the gateway does."""
        answer = _get(f"http://127.0.0.1:{port}/v1/users/u0/feed")
        with redis.Redis.from_url(self.cache_url) as client:
            for start in range(0, num_users, 10_000):
                users = range(start, min(start + 10_000, num_users))
                client.mset({feed_data.KEY.format(user=f"u{user}"): answer for user in users})

    def _start_server(self, home: Home, role: Role) -> str:
        port, folder = _free_port(), home.run / role
        folder.mkdir(parents=True)
        self._environment = dict(os.environ)
        self._start(role, valkey_command(role, port=port, folder=folder))
        url = f"redis://127.0.0.1:{port}/0"
        with redis.Redis.from_url(url) as client:
            for _ in range(250):
                try:
                    client.ping()
                    return url
                except redis.ConnectionError:
                    time.sleep(0.02)
        raise BenchCannotRun(f"the {role} server did not start on port {port}")

    def cpu_s(self) -> dict[str, float]:
        """What each part has used so far, its children with it."""
        return {
            name: sum(
                sum(process.cpu_times()[:2]) for process in (first, *first.children(recursive=True))
            )
            for name, first in self._processes.items()
        }

    def _start(self, name: str, command: list[str]) -> None:
        process = subprocess.Popen(
            command, env=self._environment, stdout=subprocess.DEVNULL, stderr=self._log
        )
        self._stack.callback(_end, process)
        self._processes[name] = psutil.Process(process.pid)


def _counted(port: int, name: str) -> float:
    """One of the gateway's own counters, over all labels and workers."""
    text = _get(f"http://127.0.0.1:{port}/metrics").decode()
    full = f"feedrank_gateway_{name}"
    lines = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return sum(float(value) for key, value in lines if key.split("{")[0] == full)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _attack(vegeta: str, port: int, num_users: int, seconds: int, folder: Path) -> dict[str, Any]:
    targets, result = folder / f"targets-{port}", folder / "result.bin"
    if not targets.exists():
        step = 7_919  # a prime, so that neighbouring requests are of distant users
        targets.write_text(
            "".join(
                f"GET http://127.0.0.1:{port}/v1/users/u{i * step % num_users}/feed\n"
                for i in range(num_users)
            )
        )
    attack = [vegeta, "attack", f"-rate={RATE}/s", f"-duration={seconds}s", f"-targets={targets}"]
    subprocess.run(
        [*attack, f"-output={result}", "-max-body=0", "-timeout=5s"], check=True, timeout=300
    )
    report = subprocess.run(
        [vegeta, "report", "-type=json", str(result)], check=True, capture_output=True
    )
    return json.loads(report.stdout)


def _vegeta() -> str:
    """The load generator, installed once into the user's cache."""
    root = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "feedrank" / "bin"
    binary = root / "vegeta"
    if found := shutil.which("vegeta"):
        return found
    if not binary.exists():
        if shutil.which("go") is None:
            raise BenchCannotRun("go is not installed; the load generator vegeta is built with it")
        built = subprocess.run(
            ["go", "install", VEGETA], env=os.environ | {"GOBIN": str(root)}, capture_output=True
        )
        if built.returncode:
            raise BenchCannotRun(f"go install {VEGETA}: {built.stderr.decode()[-500:]}")
    return str(binary)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return answer.read()


def _wait_ready(port: int) -> int:
    for _ in range(300):
        try:
            _get(f"http://127.0.0.1:{port}/readyz")
            return port
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise BenchCannotRun(f"nothing became ready on port {port} within 30 s")
