"""The same metrics by slice: readers by how much is known of them, items never learned from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from feedrank_core.evaluation import random_order
from feedrank_core.evaluation.bootstrap import paired_difference
from feedrank_trainer.comparison import Contender, measure, towers
from feedrank_trainer.holdout import Holdout
from scipy import sparse

from feedrank_cli.bench.report import Report
from feedrank_cli.quality.task import Outcome, Task, Values, mean_values, popularity

NO_ACTIONS = "with_0_actions"
BY_ACTIONS = {
    NO_ACTIONS: (0, 0),
    "with_1_to_5_actions": (1, 5),
    "with_more_actions": (6, np.inf),
}
"""Readers by the actions of their history when they are asked, as first and last."""
CHANCE = {"ndcg": random_order.ndcg_at_k, "recall": random_order.recall_at_k}


@dataclass(frozen=True)
class Slice:
    """The readers of a slice, what the towers reach for each, and what the floor does.

    `bounded` says that the towers must be above the floor.
    """

    name: str
    floor: str
    ours: Values
    theirs: Values
    bounded: bool = False


def tell(
    report: Report, task: Task, outcomes: list[Outcome], floors: Values, *, prefix: str
) -> None:
    """Add each slice's readers, its metrics and the low end of the lead over its floor."""
    for part in (*of_readers(task, outcomes, floors), *of_unseen(task, outcomes)):
        watched = task.watched
        report.figure(f"{prefix}readers_{part.name}", len(part.ours[watched]))
        for metric in task.metrics:
            report.figure(f"{prefix}{metric}_{part.name}", part.ours[metric].mean())
            floor = f"{prefix}{part.floor}_{metric}_{part.name}"
            report.floor(floor, part.theirs[metric].mean())
        lead = paired_difference(part.ours[watched], part.theirs[watched], seed=report.seed)
        low = f"{prefix}{watched}_{part.name}_over_{part.floor}_low"
        report.figure(low, lead.low)
        if part.bounded:
            report.bound(low, ">", 0.0)


def of_readers(task: Task, outcomes: list[Outcome], floors: Values) -> Iterator[Slice]:
    """The slices of BY_ACTIONS that somebody is in; strangers have no actions."""
    strangers, holdout = task.final.strangers, task.final.holdout
    if strangers is not None:
        theirs = popularity(strangers, task.metrics).values
        yield Slice(NO_ACTIONS, "popularity", _ours(task, outcomes, strangers), theirs)
    num_actions_B = (holdout.readers["history"] >= 0).sum(axis=1)
    ours = mean_values(outcome.measured for outcome in outcomes)
    for name, (first, last) in BY_ACTIONS.items():
        rows = np.flatnonzero((num_actions_B >= first) & (num_actions_B <= last))
        if len(rows):
            yield Slice(name, "popularity", _rows(ours, rows), _rows(floors, rows))


def of_unseen(task: Task, outcomes: list[Outcome]) -> Iterator[Slice]:
    """Items without a positive in training, ranked among themselves and among all.

    Nothing where none is asked for, or where items have no content: the towers cannot tell such
    items apart then. Among themselves popularity counts 0 of each, so the floor is chance; no
    format says when an item was published, so newest first cannot be had.
    """
    is_unseen_N = task.final.items["id_weight"][:, 0] == 0
    asked = asked_for(task.final.holdout, is_unseen_N)
    if not len(asked.readers["user"]) or not has_content(task):
        return
    ours = _ours(task, outcomes, asked, is_unseen_N)
    theirs = by_chance(asked, is_unseen_N, task.metrics)
    yield Slice("unseen_among_unseen", "chance", ours, theirs, bounded=True)
    theirs = popularity(asked, task.metrics).values
    yield Slice("unseen_among_all", "popularity", _ours(task, outcomes, asked), theirs)


def has_content(task: Task) -> bool:
    """Whether anything is known of any item beside its id."""
    items = task.final.items
    return any(items[name].any() for name in ("tags", "text", "vector_mask"))


def asked_for(holdout: Holdout, is_chosen_N: np.ndarray) -> Holdout:
    """The readers who want one of the chosen items, asked for these alone."""
    relevant = sparse.csr_matrix(holdout.relevant.multiply(is_chosen_N))
    return replace(holdout, relevant=relevant).asking_what_is_new()


def among(contender: Contender, is_chosen_N: np.ndarray) -> Contender:
    """The contender with the chosen items before all others."""
    return lambda rows: np.where(is_chosen_N, contender(rows), -np.inf)


def by_chance(holdout: Holdout, is_candidate_N: np.ndarray, metrics: tuple[str, ...]) -> Values:
    """What the candidates in a random order reach on average. Shapes: (N,) bool to (B,) each."""
    num_candidates_B = is_candidate_N.sum() - holdout.seen @ is_candidate_N.astype(float)
    num_relevant_B = np.diff(holdout.relevant.indptr)
    names = {metric: metric.split("_at_") for metric in metrics}
    return {
        metric: CHANCE[name](num_candidates_B.astype(int), num_relevant_B, int(k))
        for metric, (name, k) in names.items()
    }


def _ours(
    task: Task, outcomes: list[Outcome], holdout: Holdout, is_chosen_N: np.ndarray | None = None
) -> Values:
    """What the towers of each seed reach for these readers, the mean over the seeds."""
    found = []
    for outcome in outcomes:
        contender = towers(holdout, outcome.model, task.final.items)
        if is_chosen_N is not None:
            contender = among(contender, is_chosen_N)
        found.append(measure(holdout, contender, with_auc=False, metrics=task.metrics))
    return mean_values(found)


def _rows(values: Values, rows: np.ndarray) -> Values:
    return {metric: value_B[rows] for metric, value_B in values.items()}
