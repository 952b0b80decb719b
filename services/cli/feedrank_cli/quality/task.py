"""A protocol made ready, and one run of it: tuned on validation, measured once on the test."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from feedrank_core.evaluation.baselines import Popularity
from feedrank_core.features.encoding import FeatureSchema
from feedrank_core.models.two_tower import TwoTower
from feedrank_trainer.batching import ItemInputs, Source
from feedrank_trainer.comparison import Contender, Measured, measure, ndcg, towers
from feedrank_trainer.configuration import TrainingConfig
from feedrank_trainer.examples import Examples
from feedrank_trainer.holdout import Holdout, binary, matrix, pairs_of
from feedrank_trainer.training import Epoch, fit

MAX_VALIDATED = 5000
"""Readers that early stopping asks: enough to tell epochs apart, in seconds."""

Pairs = tuple[np.ndarray, np.ndarray]
"""Readers and dense items that belong together. Shapes: (A,) each."""
Values = dict[str, np.ndarray]
"""A metric's value of every reader. Shapes: (B,) each."""


@dataclass(frozen=True)
class Fold:
    """What is learned from, and what is asked.

    `items` have ids where a positive was learned from. `strangers` are readers of whom nothing is
    known and whom the protocol leaves out: a slice of their own.
    """

    source: Source
    items: ItemInputs
    holdout: Holdout
    strangers: Holdout | None = None


@dataclass(frozen=True)
class Task:
    """A data set under a protocol. `metrics` are of `comparison.measure`.

    `tuning` decides when to stop, by its NDCG `watched`. With `refit` the towers then learn anew
    from all of `final`, for as many epochs; without, those of the best epoch are measured.
    `is_usual_split` says whether published figures are of this split. `peers` are models of others,
    tuned on the same validation when the towers are measured.
    """

    schema: FeatureSchema
    tuning: Fold
    final: Fold
    refit: bool
    config: TrainingConfig
    metrics: tuple[str, ...]
    watched: str
    is_usual_split: bool = True
    facts: dict[str, float] = field(default_factory=dict)
    peers: dict[str, Callable[..., Contender]] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """One seed's run; `validated` is the best score of the watched metric while it was tuned.

    Units: seconds of wall time and of CPU, for tuning and refit together.
    """

    model: TwoTower
    measured: Measured
    validated: float
    epochs: int
    training_s: float
    training_cpu_s: float


def run_seed(task: Task, *, seed: int, report: Callable[[Epoch], None]) -> Outcome:
    """Tune, fit, measure."""
    wall, cpu = time.monotonic(), time.process_time()
    epochs: list[Epoch] = []

    def note(epoch: Epoch) -> None:
        epochs.append(epoch)
        report(epoch)

    tuning, final = task.tuning, task.final
    model = fit(
        tuning.source,
        tuning.items,
        task.schema,
        config=task.config,
        seed=seed,
        validate=lambda model: ndcg(tuning.holdout, model, tuning.items, metric=task.watched),
        report=note,
    )
    best = max(epochs, key=lambda epoch: epoch.score or 0.0)
    if task.refit:
        config = replace(task.config, epochs=best.number)
        model = fit(final.source, final.items, task.schema, config=config, seed=seed, report=report)
    took, took_cpu = time.monotonic() - wall, time.process_time() - cpu
    contender = towers(final.holdout, model, final.items)
    measured = measure(final.holdout, contender, with_auc=False, metrics=task.metrics)
    return Outcome(model, measured, best.score or 0.0, best.number, took, took_cpu)


def popularity(holdout: Holdout, metrics: Sequence[str]) -> Measured:
    """The same metrics of what most readers engaged with."""
    counts_N = Popularity(holdout.counts_N).scores(np.empty(0, np.int64))
    return measure(
        holdout,
        lambda rows: np.broadcast_to(counts_N, (len(rows), len(counts_N))),
        with_auc=False,
        metrics=metrics,
    )


def mean_values(measured: Iterable[Measured]) -> Values:
    """Each reader's metrics, the mean over the seeds."""
    values = [one.values for one in measured]
    return {metric: np.mean([one[metric] for one in values], axis=0) for metric in values[0]}


def with_ids_of(items: ItemInputs, learned: np.ndarray) -> ItemInputs:
    """The inputs with ids of these items alone, as the daily run encodes them. Shapes: any."""
    weight = np.zeros_like(items["id_weight"])
    weight[learned] = 1
    return items | {"id_weight": weight}


def holdout_of(readers: Examples, *, known: Pairs, asked: Pairs, num_items: int) -> Holdout:
    """A holdout of described readers, ascending, who are asked for what they do not know yet."""
    users = readers["user"]
    seen, relevant = (binary(pairs_of(*pairs, users, num_items)) for pairs in (known, asked))
    everyone = matrix(*known, num_items)
    counts_N = np.asarray(everyone.sum(axis=0)).ravel()
    asked_of = Holdout(readers, relevant, seen, own=seen, neighbours=everyone, counts_N=counts_N)
    return asked_of.asking_what_is_new()


def few(users: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """At most MAX_VALIDATED of the readers, ascending."""
    if len(users) <= MAX_VALIDATED:
        return users
    return np.sort(rng.choice(users, MAX_VALIDATED, replace=False))
