"""The time of `feedrank demo --once`, and the memory of all its processes together."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from feedrank_core.runtime.home import Home
from feedrank_core.runtime.memory import watching_peak

from feedrank_cli.bench.report import BenchCannotRun, Report

NAME = "demo"
HELP = "seconds and peak memory of `feedrank demo --once` (bounds: 180 s, 6 GB)"
MAX_SECONDS = 180.0
MAX_GB = 6.0


def run(home: Home, *, quick: bool, seed: int) -> Report:
    """Run the show in a home of its own. `quick` changes nothing: the show is one size."""
    report = Report(NAME, seed)
    with tempfile.TemporaryDirectory(prefix="feedrank-bench-") as folder:
        log = Path(folder) / "demo.log"
        command = [sys.executable, "-m", "feedrank_cli", "demo", "--once", "--seed", str(seed)]
        began = time.monotonic()
        with log.open("wb") as sink:
            child = psutil.Popen(
                [*command, "--home", f"{folder}/home"],
                stdout=sink,
                stderr=subprocess.STDOUT,
                env=dict(os.environ),
            )
            with watching_peak(child) as peak:
                child.wait()
        seconds = time.monotonic() - began
        if child.returncode != 0:
            last = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
            raise BenchCannotRun(f"feedrank demo --once failed ({child.returncode}):\n{last}")
    report.figure("seconds", seconds)
    report.figure("peak_memory_gb", peak.gb)
    report.bound("seconds", "<=", MAX_SECONDS)
    report.bound("peak_memory_gb", "<=", MAX_GB)
    return report
