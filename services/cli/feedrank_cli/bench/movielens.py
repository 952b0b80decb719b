"""MovieLens-100k: the two-tower against popularity and item-kNN, on each reader's last tenth."""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from feedrank_core.evaluation.bootstrap import paired_difference
from feedrank_core.features.encoding import FIRST_WORD, FeatureSchema, encode_items
from feedrank_core.runtime.home import Home
from feedrank_trainer.examples import InMemory, Log, describe, examples_of
from feedrank_trainer.holdout import Holdout, matrix
from feedrank_trainer.training import TrainingConfig, fit

from feedrank_cli.bench.report import BenchCannotRun, Report

NAME = "movielens"
HELP = "NDCG@10 and Recall@20 on ml-100k beside popularity; data from FEEDRANK_MOVIELENS."
DATA_VARIABLE = "FEEDRANK_MOVIELENS"
HELD_OUT = 0.1
POSITIVE_RATING = 4.0
CONFIG = TrainingConfig(epochs=4, num_uniform=256)
FULL_SEEDS = 3


@dataclass(frozen=True)
class Ratings:
    """Every rating by reader and time. Shapes: (R,) each; `item` is an index into `columns`."""

    columns: dict[str, list]
    user: np.ndarray
    item: np.ndarray
    rating: np.ndarray
    at_s: np.ndarray
    is_held_out: np.ndarray


def run(home: Home, *, quick: bool, seed: int) -> Report:
    """Train and compare; every mean is over readers, and over seeds in the full run."""
    folder = os.environ.get(DATA_VARIABLE)
    if not folder or not (Path(folder) / "ml-100k.inter").exists():
        raise BenchCannotRun(f"set {DATA_VARIABLE} to the folder that holds ml-100k.inter")
    ratings = read(Path(folder))
    schema = FeatureSchema.fit(ratings.columns, {})
    items = encode_items(schema, ratings.columns)
    log, holdout = split(ratings)
    source = InMemory(examples_of(log))
    runs = []
    for number in range(1 if quick else FULL_SEEDS):
        model = fit(source, items, schema, config=CONFIG, seed=seed + number)
        runs.append(holdout.measured(holdout.top(holdout.model_scores(model, items))))
    ours = {name: np.mean([one[name] for one in runs], axis=0) for name in runs[0]}
    report = Report(NAME, seed)
    report.figure("users", len(holdout.relevant))
    for baseline, scores in holdout.baseline_scores().items():
        theirs = holdout.measured(holdout.top(scores))
        for metric, values in ours.items():
            report.figure(f"two_tower_{metric}", values.mean())
            report.floor(f"{baseline}_{metric}", theirs[metric].mean())
            lead = paired_difference(values, theirs[metric], seed=seed)
            report.figure(f"{metric}_over_{baseline}_low", lead.low)
            report.figure(f"{metric}_over_{baseline}_high", lead.high)
            if baseline == "popularity":
                report.bound(f"{metric}_over_{baseline}_low", ">", 0.0)
    return report


def read(folder: Path) -> Ratings:
    """The data as RecBole's atomic files hold it."""
    films = rows_of(folder / "ml-100k.item")
    index = {film[0]: n for n, film in enumerate(films)}
    columns = {
        "item_id": [film[0] for film in films],
        "text": [film[1] for film in films],
        "tags": [film[3].split() for film in films],
        "category": [(film[3].split() or ["unknown"])[0] for film in films],
    }
    rows = rows_of(folder / "ml-100k.inter")
    user, rating, at_s = (np.array([float(row[n]) for row in rows]) for n in (0, 2, 3))
    item = np.array([index[row[1]] for row in rows])
    order = np.lexsort((at_s, user))
    user = user[order].astype(np.int64)
    _, start, count = np.unique(user, return_index=True, return_counts=True)
    place = np.arange(len(user)) - np.repeat(start, count)
    is_held_out = place >= np.repeat(count - np.floor(count * HELD_OUT), count)
    return Ratings(columns, user, item[order], rating[order], at_s[order], is_held_out)


def rows_of(path: Path) -> list[list[str]]:
    """Rows of a tab-separated file, without its header."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))[1:]


def split(ratings: Ratings) -> tuple[Log, Holdout]:
    """What may be learned from, and what is to be foretold.

    Every rating is history, told apart by its stars; those of POSITIVE_RATING are labels.
    """
    known = ~ratings.is_held_out
    is_positive = ratings.rating >= POSITIVE_RATING
    log = Log(
        ratings.user[known],
        ratings.item[known],
        FIRST_WORD - 1 + ratings.rating[known].astype(np.int64),
        ratings.at_s[known],
        is_positive[known],
    )
    readers = np.unique(ratings.user[ratings.is_held_out & is_positive])
    shape = (int(ratings.user.max()) + 1, len(ratings.columns["item_id"]))
    later = ratings.is_held_out & is_positive
    relevant = matrix(ratings.user[later], ratings.item[later], shape)[readers].toarray() > 0
    seen = matrix(log.user, log.item, shape)[readers].toarray() > 0
    earlier = matrix(log.user[log.is_label], log.item[log.is_label], shape)
    last = np.searchsorted(log.user, readers, side="right") - 1
    described = describe(log, readers, log.at_s[last] + 1)
    return log, Holdout(described, relevant, seen, earlier, earlier[readers])
