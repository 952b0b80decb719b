"""Planted data for the protocols of `feedrank bench quality`, and short runs on it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from feedrank_cli.bench import quality
from feedrank_cli.bench.report import Report
from feedrank_cli.quality.task import Outcome, Task, run_seed
from feedrank_trainer.configuration import TrainingConfig

NUM_CIRCLES, CIRCLE = 8, 12
"""Items of a circle are liked by the same readers, or follow each other."""
SHORT = TrainingConfig(epochs=6, batch_size=64, num_uniform=64, learning_rate=1e-2, patience=6)
"""Never stopped early: a score over so few readers falls now and then."""


def line(user: int, items: np.ndarray | list[int]) -> str:
    return " ".join(map(str, [user, *np.asarray(items).tolist()]))


def write(path: Path, lines: list[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def circles_of_taste(folder: Path) -> Path:
    """Every reader likes one circle: what train.txt lacks of it is the whole of the answer."""
    rng = np.random.default_rng(1)
    parts = [rng.permutation(CIRCLE) + CIRCLE * (user % NUM_CIRCLES) for user in range(160)]
    write(folder / "train.txt", [line(user, part[:8]) for user, part in enumerate(parts)])
    write(folder / "test.txt", [line(user, part[8:]) for user, part in enumerate(parts)])
    return folder


def circles_of_order(folder: Path) -> Path:
    """Every reader goes round one circle: the next item is the one after the last."""
    rng = np.random.default_rng(2)
    lines = []
    for user in range(160):
        steps = rng.integers(CIRCLE) + np.arange(8)
        lines.append(line(user, 1 + CIRCLE * (user % NUM_CIRCLES) + steps % CIRCLE))
    return write(folder / "rounds.txt", lines)


def films_of_one_genre(folder: Path) -> Path:
    """Every reader gives five stars to one genre and one star to the rest."""
    rng = np.random.default_rng(3)
    films = [f"{n}\tfilm {n}\t1990\tgenre{n % 4}" for n in range(80)]
    write(folder / "ml.item", ["id:token\ttitle:seq\tyear:token\tclass:seq", *films])
    rows = ["user:token\titem:token\trating:float\ttimestamp:float"]
    for user in range(60):
        for place, film in enumerate(rng.permutation(80)[:50]):
            stars = 5 if film % 4 == user % 4 else 1
            rows.append(f"{user}\t{film}\t{stars}\t{1000 * place + user}")
    write(folder / "ml.inter", rows)
    return folder


def films_that_come_later(folder: Path) -> Path:
    """As above, but everyone's last tenth is films that nobody had rated before.

    Two readers of each genre are themselves new in that tenth.
    """
    rng = np.random.default_rng(4)
    films = [f"{n}\tfilm {n}\t1990\tgenre{n % 4}" for n in range(100)]
    write(folder / "ml.item", ["id:token\ttitle:seq\tyear:token\tclass:seq", *films])
    rows = ["user:token\titem:token\trating:float\ttimestamp:float"]
    for user in range(88):
        old = rng.permutation(80)[: 0 if user >= 80 else 50]
        for place, film in enumerate([*old, *(80 + rng.permutation(20)[:5])]):
            stars = 5 if film % 4 == user % 4 else 1
            when = place if film < 80 else 200 - place
            rows.append(f"{user}\t{film}\t{stars}\t{1000 * when + user}")
    write(folder / "ml.inter", rows)
    return folder


def short_run(task: Task) -> Outcome:
    """One seed of a few epochs, whatever the task's own configuration."""
    return run_seed(replace(task, config=SHORT), seed=0, report=lambda epoch: None)


def told(task: Task) -> Report:
    """What the bench says of one short run."""
    report = Report("quality", 0)
    quality.tell(report, task, [short_run(task)])
    return report
