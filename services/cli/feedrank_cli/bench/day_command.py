"""One command of the day on a home of its own: what it said, and what it took."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psutil
from feedrank_core.runtime.home import Home
from feedrank_core.runtime.memory import watching_peak

from feedrank_cli.bench.report import BenchCannotRun
from feedrank_cli.demo import free_ports


@dataclass(frozen=True)
class Ran:
    """The last line of its output, its time, and the most memory that it had at once."""

    said: Any
    seconds: float
    cpu_s: float
    gb: float


def run_command(place: Home, module: str, *arguments: str) -> Ran:
    """Run a command as of now. Raises: BenchCannotRun where it fails."""
    port = str(free_ports(1)[0])  # a day of this machine may answer probes on the usual one
    child = psutil.Popen(
        [sys.executable, "-m", module, *arguments, "--as-of", datetime.now(UTC).isoformat()],
        env=os.environ | {"FEEDRANK_HOME": str(place.root), "FEEDRANK_TRAINER_PORT": port},
        stdout=subprocess.PIPE,
    )
    began, before_s = time.monotonic(), _cpu_s()
    with watching_peak(child) as peak:
        said, _ = child.communicate()
    if child.returncode:
        raise BenchCannotRun(f"{arguments[0]} ended with {child.returncode}; its message is above")
    seconds = time.monotonic() - began
    return Ran(json.loads(said.splitlines()[-1]), seconds, _cpu_s() - before_s, peak.gb)


def _cpu_s() -> float:
    """Of all children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
