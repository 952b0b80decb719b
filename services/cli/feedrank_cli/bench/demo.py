"""The two readers' feeds of `make demo` in a fresh clone: the time to them, and everybody's memory.

The package cache is as warm as it is; the clone is of the last commit.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections import deque
from pathlib import Path

import psutil
from feedrank_core.runtime.home import Home
from feedrank_core.runtime.memory import watching_peak

from feedrank_cli.bench.report import BenchCannotRun, Report
from feedrank_cli.demo import SAME_ITEMS

NAME = "demo"
HELP = "set-up and show in a fresh clone (--quick: the show alone), bounds: 180 s to a feed, 6 GB"
MAX_SECONDS = 180.0
MAX_GB = 6.0
REPOSITORY = Path(__file__).resolve().parents[4]
KEPT_LINES = 15


def run(home: Home, *, quick: bool, seed: int) -> Report:
    """Time the show in a home of its own. Raises: BenchCannotRun."""
    report = Report(NAME, seed)
    with tempfile.TemporaryDirectory(prefix="feedrank-bench-") as folder:
        show = f"--once --seed {seed} --home {folder}/home"
        began = time.monotonic()
        if quick:
            command, where = [sys.executable, "-m", "feedrank_cli", "demo", *show.split()], folder
        else:
            where = str(_fresh_clone(Path(folder)))
            python = f"PYTHON={Path(sys.base_prefix) / 'bin' / 'python3.11'}"
            _said_by(["make", "setup", python], where)
            report.figure("setup_s", time.monotonic() - began)
            command = ["make", "demo", python, f"DEMO={show}"]
        child = _start(command, where)
        with watching_peak(psutil.Process(child.pid)) as peak:
            first_feed_s = _until(child, SAME_ITEMS, began)
        report.figure("first_feed_s", first_feed_s)
        report.figure("seconds", time.monotonic() - began)
    report.figure("peak_memory_gb", peak.gb)
    report.bound("first_feed_s", "<=", MAX_SECONDS)
    report.bound("peak_memory_gb", "<=", MAX_GB)
    return report


def _fresh_clone(folder: Path) -> Path:
    if not (REPOSITORY / ".git").exists():
        raise BenchCannotRun(f"{REPOSITORY} is no git checkout; --quick times the show alone")
    clone = folder / "clone"
    _said_by(["git", "clone", "--quiet", str(REPOSITORY), str(clone)], folder=str(folder))
    return clone


def _start(command: list[str], folder: str) -> subprocess.Popen[str]:
    # Not this process's environment of Python: the clone has its own.
    environment = {k: v for k, v in os.environ.items() if k not in {"VIRTUAL_ENV", "PYTHONPATH"}}
    pipe, both = subprocess.PIPE, subprocess.STDOUT
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=pipe, stderr=both, text=True, errors="replace"
    )


def _said_by(command: list[str], folder: str) -> None:
    child = _start(command, folder)
    said, _ = child.communicate()
    if child.returncode:
        last = "\n".join(said.splitlines()[-KEPT_LINES:])
        raise BenchCannotRun(f"{' '.join(command)} failed ({child.returncode}):\n{last}")


def _until(child: subprocess.Popen[str], phrase: str, began: float) -> float:
    """Seconds until the child said the phrase; waits for its end. Raises: BenchCannotRun."""
    assert child.stdout is not None
    last: deque[str] = deque(maxlen=KEPT_LINES)
    seconds: float | None = None
    for line in child.stdout:
        last.append(line)
        if seconds is None and phrase in line:
            seconds = time.monotonic() - began
    if child.wait() or seconds is None:
        raise BenchCannotRun(f"the show failed ({child.returncode}):\n{''.join(last)}")
    return seconds
