"""MovieLens-100k as RecBole's atomic files hold it, by two splits.

By reader: the last tenth of each reader's ratings. By time: the last tenth of all ratings, asked of
those who rated before; the others are a slice of their own. A label is a rating of POSITIVE_RATING;
the validation is the last tenth of what is left, in the same way.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from feedrank_core.features.encoding import FIRST_WORD, FeatureSchema, encode_items
from feedrank_trainer.batching import ItemInputs
from feedrank_trainer.examples import InMemory, Log, describe, examples_of
from feedrank_trainer.holdout import Holdout, binary, matrix, pairs_of
from feedrank_trainer.presets import PRESETS
from scipy import sparse

from feedrank_cli.quality.als import tuned_als
from feedrank_cli.quality.reading import DataError
from feedrank_cli.quality.task import Fold, Task, with_ids_of

HELD_OUT = 0.1
POSITIVE_RATING = 4.0
CONFIG = replace(PRESETS["feed"], epochs=20, num_uniform=256, patience=3)
FILM_COLUMNS, RATING_COLUMNS = 4, 4
FIRST_LINE = 2
"""Below the header."""
BY_READER, BY_TIME = "by_reader", "by_time"


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


def prepare(path: Path, splits: Iterable[str] = (BY_READER, BY_TIME)) -> dict[str, Task]:
    """The tasks of these splits, by their names. Raises: DataError."""
    ratings = read(path)
    schema = FeatureSchema.fit(ratings.columns, {})
    items = encode_items(schema, ratings.columns)
    tasks = {}
    for name in splits:
        cut = CUTS[name]
        is_held_out = cut(ratings)
        known = ratings.rows(~is_held_out)
        try:
            final = _fold(items, ratings, is_held_out)
            tuning = _fold(items, known, cut(known))
        except DataError as error:
            raise DataError(f"{path}, {name}: {error}") from error
        tasks[name] = Task(
            schema=schema,
            tuning=tuning,
            final=final,
            refit=True,
            config=CONFIG,
            metrics=("ndcg_at_10", "recall_at_20"),
            watched="ndcg_at_10",
            is_usual_split=name == BY_READER,
            peers={"als": tuned_als},
            facts={
                "users": len(np.unique(ratings.user)),
                "items": len(ratings.columns["item_id"]),
                "actions": len(ratings.user),
            },
        )
    return tasks


def _fold(items: ItemInputs, ratings: Ratings, is_held_out: np.ndarray) -> Fold:
    log, holdout, strangers = split(ratings, is_held_out)
    learned = with_ids_of(items, log.item[log.is_label])
    return Fold(InMemory(examples_of(log)), learned, holdout, strangers)


def read(folder: Path) -> Ratings:
    """The films and ratings of the folder's only `.item` and `.inter`. Raises: DataError."""
    films_file, ratings_file = (_only(folder, suffix) for suffix in (".item", ".inter"))
    films = rows_of(films_file, FILM_COLUMNS)
    index = {film[0]: n for n, film in enumerate(films)}
    columns = {
        "item_id": [film[0] for film in films],
        "text": [film[1] for film in films],
        "tags": [film[3].split() for film in films],
        "category": [(film[3].split() or ["unknown"])[0] for film in films],
    }
    rows = rows_of(ratings_file, RATING_COLUMNS)
    for line, row in enumerate(rows, FIRST_LINE):
        if row[1] not in index:
            raise DataError(f"{ratings_file}:{line}: item {row[1]!r} is not in {films_file.name}")
    item = np.array([index[row[1]] for row in rows])
    user, rating, at_s = (_numbers(ratings_file, rows, n) for n in (0, 2, 3))
    order = np.lexsort((item, at_s, user))
    return Ratings(columns, user[order].astype(np.int64), item[order], rating[order], at_s[order])


def _only(folder: Path, suffix: str) -> Path:
    found = sorted(folder.glob(f"*{suffix}"))
    if len(found) != 1:
        raise DataError(f"{folder}: holds {len(found)} {suffix} files where one is looked for")
    return found[0]


def _numbers(path: Path, rows: list[list[str]], column: int) -> np.ndarray:
    found = np.empty(len(rows))
    for place, row in enumerate(rows):
        try:
            found[place] = float(row[column])
        except ValueError:
            found[place] = np.nan
        if not np.isfinite(found[place]):
            raise DataError(f"{path}:{place + FIRST_LINE}: {row[column][:40]!r} is no number")
    return found


def last_tenth(user: np.ndarray) -> np.ndarray:
    """The last tenth of each reader's rows, rounded. Shapes: (R,) sorted by reader, to (R,) bool.

    Ratings of one second stand in the catalogue's order: 840 readers have a positive there.
    """
    _, start, count = np.unique(user, return_index=True, return_counts=True)
    place = np.arange(len(user)) - np.repeat(start, count)
    return place >= np.repeat(count - np.round(count * HELD_OUT), count)


def latest_tenth(at_s: np.ndarray) -> np.ndarray:
    """The last tenth of all rows, as a moment divides them. Shapes: (R,) to (R,) bool."""
    return at_s > np.quantile(at_s, 1 - HELD_OUT, method="lower")


def rows_of(path: Path, num_columns: int) -> list[list[str]]:
    """Rows of a tab-separated file, without its header. Raises: DataError."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))[1:]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: {error}") from error
    for line, row in enumerate(rows, FIRST_LINE):
        if len(row) < num_columns:
            raise DataError(f"{path}:{line}: {len(row)} columns where {num_columns} are looked for")
    if not rows:
        raise DataError(f"{path}: holds a header alone")
    return rows


CUTS: dict[str, Callable[[Ratings], np.ndarray]] = {
    BY_READER: lambda ratings: last_tenth(ratings.user),
    BY_TIME: lambda ratings: latest_tenth(ratings.at_s),
}
"""What each split holds out, as (R,) bool."""


def split(ratings: Ratings, is_held_out: np.ndarray) -> tuple[Log, Holdout, Holdout | None]:
    """What may be learned from, and what is to be foretold of its readers and of strangers.

    Every rating is history, told apart by its stars; those of POSITIVE_RATING are labels.
    Shapes: is_held_out (R,) bool.
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
    later = ratings.rows(is_held_out & is_positive)
    readers = np.intersect1d(later.user, log.user)
    if not len(readers):
        raise DataError("nobody who is known liked anything in the last tenth")
    strangers = np.setdiff1d(later.user, log.user)
    return (
        log,
        _asked(readers, later, log),
        _asked(strangers, later, log) if len(strangers) else None,
    )


def _asked(readers: np.ndarray, later: Ratings, log: Log) -> Holdout:
    """Readers as they were after their last known rating, asked for what they liked later."""
    num_items = len(later.columns["item_id"])

    def of_readers(user: np.ndarray, item: np.ndarray) -> sparse.csr_matrix:
        return binary(pairs_of(user, item, readers, num_items))

    earlier = matrix(log.user[log.is_label], log.item[log.is_label], num_items)
    # A stranger has no history, so the moment does not matter.
    last = np.searchsorted(log.user, readers, side="right") - 1
    return Holdout(
        readers=describe(log, readers, log.at_s[last] + 1),
        relevant=of_readers(later.user, later.item),
        seen=of_readers(log.user, log.item),
        own=of_readers(log.user[log.is_label], log.item[log.is_label]),
        neighbours=earlier,
        counts_N=np.asarray(earlier.sum(axis=0)).ravel(),
    )
