"""Ranking quality by the protocols of published tables, beside their figures."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from feedrank_core.evaluation.bootstrap import paired_difference
from feedrank_core.runtime.home import Home
from feedrank_trainer.comparison import measure
from feedrank_trainer.progress import epoch_report

from feedrank_cli.bench.picture import require_drawing
from feedrank_cli.bench.report import BenchCannotRun, Report
from feedrank_cli.quality import lightgcn, movielens, sequences, slices, trade_off, variety
from feedrank_cli.quality.als import require_als
from feedrank_cli.quality.changing import ChangeError, changed
from feedrank_cli.quality.picture import draw
from feedrank_cli.quality.published import known_as
from feedrank_cli.quality.reading import DataError
from feedrank_cli.quality.task import Outcome, Task, Values, mean_values, popularity, run_seed
from feedrank_cli.quality.trade_off import Curves

NAME = "quality"
HELP = "FORMAT PATH: the two-tower beside published tables; lightgcn, sequences or movielens."
FORMATS: dict[str, Callable[[Path], dict[str, Task]]] = {
    "lightgcn": lightgcn.prepare,
    "sequences": sequences.prepare,
    "movielens": movielens.prepare,
}
FULL_SEEDS = 3
QUICK_EPOCHS = 2


def run(
    home: Home,
    *,
    quick: bool,
    seed: int,
    data_format: str,
    path: Path,
    seeds: int = FULL_SEEDS,
    changes: Sequence[str] = (),
    picture: Path | None = None,
) -> Report:
    """Tune, train and measure with several seeds; every figure is the mean over them.

    `changes` are NAME=VALUE of the training's configuration, for ablations. With `picture` also at
    every setting of the re-ranking's knobs, which are drawn into that file.
    """
    if data_format not in FORMATS:
        raise BenchCannotRun(f"{data_format!r} is no FORMAT; known: {', '.join(FORMATS)}")
    if picture is not None:
        require_drawing(picture)
    try:
        tasks = {
            name: replace(task, config=changed(task.config, changes))
            for name, task in FORMATS[data_format](path).items()
        }
    except (DataError, ChangeError) as error:
        raise BenchCannotRun(str(error)) from error
    if any(task.peers for task in tasks.values()):
        require_als()
    report = Report(" ".join([NAME, data_format, *changes]), seed)
    curves: dict[str, Curves] = {}
    for name, task in tasks.items():
        if quick:
            task = replace(task, config=replace(task.config, epochs=QUICK_EPOCHS))
        outcomes = run_seeds(task, range(seed, seed + (1 if quick else seeds)))
        prefix = f"{name}_" if name else ""
        tell(report, task, outcomes, prefix=prefix)
        if picture is not None:
            title = f"{path.resolve().stem} {name.replace('_', ' ')}".strip()
            curves[title] = trade_off.tell(report, task, outcomes, prefix=prefix)
    if picture is not None:
        draw(picture, curves)
    # Of the whole process, reading included: Linux counts in KiB.
    report.figure("peak_mb", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    return report


def run_seeds(task: Task, numbers: Iterable[int]) -> list[Outcome]:
    """A run with each seed, its epochs shown as they come."""
    outcomes = []
    for number in numbers:
        with epoch_report(task.config.epochs) as show:
            outcomes.append(run_seed(task, seed=number, report=show))
    return outcomes


def tell(report: Report, task: Task, outcomes: list[Outcome], *, prefix: str = "") -> None:
    """Add a task's figures, what popularity reaches, and what others have published."""
    for fact, value in task.facts.items():
        report.figure(f"{prefix}{fact}", value)
    report.figure(f"{prefix}measured_users", len(task.final.holdout.readers["user"]))
    measured = popularity(task.final.holdout, task.metrics)
    floors = measured.values
    for metric in task.metrics:
        means = [outcome.measured.values[metric].mean() for outcome in outcomes]
        report.figure(f"{prefix}{metric}", float(np.mean(means)))
        if len(means) > 1:
            report.figure(f"{prefix}{metric}_spread", float(np.std(means, ddof=1)))
        report.floor(f"{prefix}popularity_{metric}", floors[metric].mean())
    of_readers = mean_values(outcome.measured for outcome in outcomes)
    lead = paired_difference(of_readers[task.watched], floors[task.watched], seed=report.seed)
    report.figure(f"{prefix}{task.watched}_over_popularity_low", lead.low)
    report.bound(f"{prefix}{task.watched}_over_popularity_low", ">", 0.0)
    tell_peers(report, task, of_readers, prefix=prefix)
    slices.tell(report, task, outcomes, floors, prefix=prefix)
    variety.tell(report, task, outcomes, measured, prefix=prefix)
    report.figure(f"{prefix}validated", float(np.mean([one.validated for one in outcomes])))
    report.figure(f"{prefix}epochs", float(np.mean([outcome.epochs for outcome in outcomes])))
    for unit in ("training_s", "training_cpu_s"):
        worst = max(getattr(outcome, unit) for outcome in outcomes)
        report.figure(f"{prefix}{unit}", worst)
    known = known_as(task)
    if known is None:
        return
    for metric, bound in known.bounds:
        report.bound(f"{prefix}{metric}", ">=", bound)
    for other in known.published:
        for metric, value in other.figures.items():
            report.publish(f"{prefix}{metric}", other.model, value, other.source)


def tell_peers(report: Report, task: Task, ours: Values, *, prefix: str) -> None:
    """Add what the task's peers reach, and our lead over each, reader by reader.

    Where the split is the usual one the mean lead must not be below nothing.
    """
    for name, fitted in task.peers.items():
        contender = fitted(task, seed=report.seed)
        theirs = measure(task.final.holdout, contender, with_auc=False, metrics=task.metrics).values
        for metric in task.metrics:
            report.floor(f"{prefix}{name}_{metric}", theirs[metric].mean())
            lead = paired_difference(ours[metric], theirs[metric], seed=report.seed)
            over = f"{prefix}{metric}_over_{name}"
            report.figure(over, lead.mean)
            report.figure(f"{over}_low", lead.low)
            if task.is_usual_split:
                report.bound(over, ">=", 0.0)
