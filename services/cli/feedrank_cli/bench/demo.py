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

from feedrank_cli.bench.report import BenchCannotRun, Report

NAME = "demo"
HELP = "seconds and peak memory of `feedrank demo --once` (bounds: 180 s, 6 GB)"
MAX_SECONDS = 180.0
MAX_GB = 6.0
LOOK_EVERY_S = 0.5


def _memory_bytes(root: psutil.Process) -> int:
    """Resident memory of a process and all below it."""
    total = 0
    try:
        family = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for process in family:
        try:
            total += process.memory_info().rss
        except psutil.Error:
            continue
    return total


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
            peak = 0
            while child.poll() is None:
                peak = max(peak, _memory_bytes(child))
                time.sleep(LOOK_EVERY_S)
        seconds = time.monotonic() - began
        if child.returncode != 0:
            last = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
            raise BenchCannotRun(f"feedrank demo --once failed ({child.returncode}):\n{last}")
    report.figure("seconds", seconds)
    report.figure("peak_rss_gb", peak / 1e9)
    report.bound("seconds", "<=", MAX_SECONDS)
    report.bound("peak_rss_gb", "<=", MAX_GB)
    return report
