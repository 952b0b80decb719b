"""The steps of one day, run as the services' own commands, resumable where one failed."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from feedrank_core.runtime.bundle_store import BundleStore
from feedrank_core.runtime.home import Home

from feedrank_cli.errors import CommandError
from feedrank_cli.invocation import invocation
from feedrank_cli.settings import Settings

RUN = re.compile(r"[0-9]{8}T[0-9]{12}Z")
"""Folders named by `daily`; what somebody named by hand is theirs to remove."""
STEP_FILE = "done.json"
LAST_LINES = 20


@dataclass(frozen=True)
class Step:
    """One command of a service. `wants` names what it is told: as_of, run, epochs."""

    name: str
    module: str
    verb: str
    wants: tuple[str, ...]


STEPS = (
    Step("collect", "feedrank_ingestion", "collect", ("run",)),
    Step("catalogue", "feedrank_feature_store", "catalogue", ("as_of",)),
    Step("features", "feedrank_feature_store", "features", ("as_of",)),
    Step("pairs", "feedrank_trainer", "pairs", ("as_of", "run")),
    Step("train", "feedrank_trainer", "train", ("as_of", "run", "epochs")),
    Step("rank", "feedrank_batch_ranker", "rank", ("run",)),
    Step("publish", "feedrank_batch_ranker", "publish", ("run",)),
    Step("compact", "feedrank_ingestion", "compact", ()),
)
"""Nothing serves before `publish`: a day that fails earlier changes no feed.

Compaction comes last, so that it holds up no feed. Whoever reads the lake meanwhile goes on: files
that it replaced stay for a day.
"""


@dataclass(frozen=True)
class Day:
    """One run of the steps. Its folder holds what is done and each step's log."""

    settings: Settings
    folder: Path
    date: date | None = None
    epochs: int | None = None

    @property
    def done(self) -> dict[str, float]:
        """Seconds of each finished step."""
        path = self.folder / STEP_FILE
        return json.loads(path.read_text()) if path.exists() else {}

    def as_of(self) -> datetime:
        """The instant everything sees: what `collect` pinned, or the end of an earlier date."""
        pinned = json.loads((self.folder / "offsets.json").read_text())
        moment = datetime.fromisoformat(pinned["as_of"]).astimezone(UTC)
        if self.date is None:
            return moment
        midnight = datetime.combine(self.date, datetime.min.time(), tzinfo=UTC)
        return min(moment, midnight + timedelta(days=1))

    def command(self, step: Step) -> list[str]:
        """The command line of a step."""
        arguments = [sys.executable, "-m", step.module, step.verb]
        if "as_of" in step.wants:
            arguments += ["--as-of", self.as_of().isoformat()]
        if "run" in step.wants:
            arguments += ["--run", str(self.folder)]
        if "epochs" in step.wants and self.epochs is not None:
            arguments += ["--epochs", str(self.epochs)]
        return arguments

    def finish(self, step: Step) -> float:
        """Run one step to its end. Units: returns seconds. Raises: CommandError, last lines."""
        log = self.folder / f"{step.name}.log"
        began = time.monotonic()
        with log.open("ab") as sink:
            child = subprocess.Popen(
                self.command(step),
                env=os.environ | self.settings.environment(),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
            )
            code = _wait(child)
        if code != 0:
            last = "\n".join(log.read_text(errors="replace").splitlines()[-LAST_LINES:])
            served = "the new feeds serve" if "publish" in self.done else "nothing was published"
            raise CommandError(
                f"Step {step.name} failed (exit code {code}); {served}.\n{last}",
                f"Whole log: {log}\nWhen mended: {invocation()} daily --run {self.folder.name}",
            )
        seconds = time.monotonic() - began
        whole = self.done | {step.name: round(seconds, 2)}
        partial = self.folder / f"{STEP_FILE}.partial"
        partial.write_text(json.dumps(whole))
        partial.replace(self.folder / STEP_FILE)
        return seconds


def _wait(child: subprocess.Popen[bytes]) -> int:
    try:
        return child.wait()
    except BaseException:
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=10)
        if child.poll() is None:
            child.kill()
            child.wait()
        raise


@contextlib.contextmanager
def only_one(settings: Settings) -> Iterator[None]:
    """Hold the day of this home. Raises: CommandError while another run holds it."""
    path = settings.place.runs / "daily.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise CommandError(
                f"A daily run is already under way in this home (pid {lock.read().strip()}).",
                "Wait for it to end, or stop it; the lock goes with its process.",
            ) from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def run_day(day: Day, *, begin: Callable[[Step], None], end: Callable[[Step, float], None]) -> None:
    """Every step that is not done yet, in order; the first failure ends it."""
    with only_one(day.settings):
        day.folder.mkdir(parents=True, exist_ok=True)
        for step in STEPS:
            begin(step)
            seconds = day.done.get(step.name)
            end(step, day.finish(step) if seconds is None else seconds)
        forget_runs(day.settings.place)


def forget_runs(place: Home) -> None:
    """Remove the runs before that of the oldest bundle which `publish` has kept.

    Whatever began later stays, finished or not: `--run` may continue it.
    """
    bundles = set(BundleStore(place.bundles).ids())
    runs = sorted(path for path in place.runs.iterdir() if RUN.fullmatch(path.name))
    kept = [run for run in runs if _bundle_of(run) in bundles]
    for run in runs[: runs.index(kept[0])] if kept else ():
        shutil.rmtree(run)


def _bundle_of(run: Path) -> str | None:
    path = run / "bundle.json"
    return json.loads(path.read_text())["bundle_id"] if path.exists() else None
