"""MovieLens-100k: the two-tower against popularity and item-kNN, on each reader's last tenth."""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from feedrank_core.evaluation.bootstrap import paired_difference
from feedrank_core.features.encoding import FIRST_WORD, FeatureSchema, encode_items
from feedrank_core.runtime.home import Home
from feedrank_trainer.comparison import baselines, measure, ndcg, towers
from feedrank_trainer.examples import InMemory, Log, describe, examples_of
from feedrank_trainer.holdout import Holdout, binary, matrix, pairs_of
from feedrank_trainer.training import Epoch, ItemInputs, TrainingConfig, fit
from scipy import sparse

from feedrank_cli.bench.report import BenchCannotRun, Report

NAME = "movielens"
HELP = "NDCG@10 and Recall@20 on ml-100k beside popularity; data from FEEDRANK_MOVIELENS."
DATA_VARIABLE = "FEEDRANK_MOVIELENS"
HELD_OUT = 0.1
POSITIVE_RATING = 4.0
CONFIG = TrainingConfig(epochs=20, num_uniform=256, patience=3)
FULL_SEEDS = 3


@dataclass(frozen=True)
class Ratings:
    """Every rating by reader and time. Shapes: (R,) each; `item` is an index into `columns`."""

    columns: dict[str, list]
    user: np.ndarray
    item: np.ndarray
    rating: np.ndarray
    at_s: np.ndarray

    def rows(self, chosen: np.ndarray) -> Ratings:
        """The chosen ratings, in order."""
        columns = (self.user, self.item, self.rating, self.at_s)
        return Ratings(self.columns, *(column[chosen] for column in columns))


def run(home: Home, *, quick: bool, seed: int) -> Report:
    """Train and compare; every mean is over readers, and over seeds in the full run."""
    folder = os.environ.get(DATA_VARIABLE)
    if not folder or not (Path(folder) / "ml-100k.inter").exists():
        raise BenchCannotRun(f"set {DATA_VARIABLE} to the folder that holds ml-100k.inter")
    ratings = read(Path(folder))
    schema = FeatureSchema.fit(ratings.columns, {})
    items = encode_items(schema, ratings.columns)
    is_held_out = last_tenth(ratings.user)
    log, holdout = split(ratings, is_held_out)
    source, known = InMemory(examples_of(log)), ratings.rows(~is_held_out)
    runs, epochs = [], []
    for number in range(seed, seed + (1 if quick else FULL_SEEDS)):
        epochs.append(best_epochs(known, items, schema, seed=number))
        config = replace(CONFIG, epochs=epochs[-1])
        model = fit(source, items, schema, config=config, seed=number)
        runs.append(measure(holdout, towers(holdout, model, items), with_auc=False).values)
    ours = {name: np.mean([one[name] for one in runs], axis=0) for name in runs[0]}
    report = Report(NAME, seed)
    report.figure("users", len(holdout.readers["user"]))
    report.figure("epochs", float(np.mean(epochs)))
    for baseline, contender in baselines(holdout).items():
        theirs = measure(holdout, contender, with_auc=False).values
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
    order = np.lexsort((item, at_s, user))
    return Ratings(columns, user[order].astype(np.int64), item[order], rating[order], at_s[order])


def last_tenth(user: np.ndarray) -> np.ndarray:
    """The last tenth of each reader's rows, rounded. Shapes: (R,) sorted by reader, to (R,) bool.

    Ratings of one second stand in the catalogue's order: 840 readers have a positive there.
    """
    _, start, count = np.unique(user, return_index=True, return_counts=True)
    place = np.arange(len(user)) - np.repeat(start, count)
    return place >= np.repeat(count - np.round(count * HELD_OUT), count)


def rows_of(path: Path) -> list[list[str]]:
    """Rows of a tab-separated file, without its header."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))[1:]


def split(ratings: Ratings, is_held_out: np.ndarray) -> tuple[Log, Holdout]:
    """What may be learned from, and what is to be foretold. Shapes: is_held_out (R,) bool.

    Every rating is history, told apart by its stars; those of POSITIVE_RATING are labels.
    """
    known = ~is_held_out
    is_positive = ratings.rating >= POSITIVE_RATING
    log = Log(
        ratings.user[known],
        ratings.item[known],
        FIRST_WORD - 1 + ratings.rating[known].astype(np.int64),
        ratings.at_s[known],
        is_positive[known],
    )
    later = is_held_out & is_positive
    readers = np.intersect1d(ratings.user[later], log.user)
    num_items = len(ratings.columns["item_id"])

    def of_readers(user: np.ndarray, item: np.ndarray) -> sparse.csr_matrix:
        return binary(pairs_of(user, item, readers, num_items))

    earlier = matrix(log.user[log.is_label], log.item[log.is_label], num_items)
    last = np.searchsorted(log.user, readers, side="right") - 1
    return log, Holdout(
        readers=describe(log, readers, log.at_s[last] + 1),
        relevant=of_readers(ratings.user[later], ratings.item[later]),
        seen=of_readers(log.user, log.item),
        own=of_readers(log.user[log.is_label], log.item[log.is_label]),
        neighbours=earlier,
        counts_N=np.asarray(earlier.sum(axis=0)).ravel(),
    )


def best_epochs(ratings: Ratings, items: ItemInputs, schema: FeatureSchema, *, seed: int) -> int:
    """How many epochs the last tenth of the training ratings speaks for."""
    log, holdout = split(ratings, last_tenth(ratings.user))
    epochs: list[Epoch] = []
    fit(
        InMemory(examples_of(log)),
        items,
        schema,
        config=CONFIG,
        seed=seed,
        validate=lambda model: ndcg(holdout, model, items),
        report=epochs.append,
    )
    return max(epochs, key=lambda epoch: epoch.score or 0.0).number
