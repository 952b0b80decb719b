"""A reader and their items in time order a line, and perhaps attributes of items as JSON.

Leave-one-out of the sequential recommenders (Kang and McAuley 2018): the last item is the test, the
one before it the validation, and the whole catalogue but the reader's earlier items is ranked.

Rules: a reader of fewer than three items is learned from, not measured; an item may come again, and
as the last one it is asked although it was seen; attributes of unknown items are left out.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from feedrank_core.features.encoding import FIRST_WORD, FeatureSchema, encode_items
from feedrank_trainer.examples import InMemory, Log, describe, examples_of
from feedrank_trainer.holdout import Holdout
from feedrank_trainer.presets import PRESETS

from feedrank_cli.quality.reading import DataError, Lines, read_lines
from feedrank_cli.quality.task import Fold, Task, few, holdout_of, with_ids_of

CONFIG = PRESETS["sequences"]
SPLIT_SEED = 0
ROWS_AN_ITEM = 16
"""Ids that were met a few times cannot make up for rows that others pull at."""
MIN_ITEMS = 3
ATTRIBUTES = "_item2attributes.json"


def prepare(path: Path) -> dict[str, Task]:
    """The task of a text file, or of a folder with one. Raises: DataError.

    Attributes are read where they stand beside it, as `NAME` + ATTRIBUTES.
    """
    file = sequence_file(path)
    lines = read_lines(file)
    ids, item = np.unique(lines.item, return_inverse=True)
    place, num_after = _places(lines)
    if not (num_after == MIN_ITEMS - 1).any():
        raise DataError(f"{file}: no user has three items: nobody can be measured")
    columns: dict[str, list] = {"item_id": [str(i) for i in ids.tolist()]}
    attributes = file.with_name(file.stem + ATTRIBUTES)
    if attributes.exists():
        found = read_attributes(attributes)
        columns["tags"] = [found.get(item_id, []) for item_id in columns["item_id"]]
    schema = FeatureSchema.fit(columns, {}, rows_an_item=ROWS_AN_ITEM)
    order = np.lexsort((place, lines.user))
    user, item, place, num_after = (c[order] for c in (lines.user, item, place, num_after))
    whole = Log(user, item, np.full(len(user), FIRST_WORD), place.astype(float), place > 0)
    held_out = _held_out(user, num_after)
    source = InMemory(examples_of(whole.rows(held_out == 0)))
    items = with_ids_of(encode_items(schema, columns), item[held_out == 0])
    return {
        "": Task(
            schema=schema,
            tuning=Fold(source, items, _holdout(whole, held_out, 2, len(ids), at_most_few=True)),
            final=Fold(source, items, _holdout(whole, held_out, 1, len(ids))),
            refit=False,
            config=CONFIG,
            metrics=("recall_at_5", "recall_at_10", "ndcg_at_5", "ndcg_at_10"),
            watched="ndcg_at_10",
            facts={"users": len(lines.users), "items": len(ids), "actions": len(item)},
        )
    }


def sequence_file(path: Path) -> Path:
    """The file itself, or the only `.txt` of a folder. Raises: DataError."""
    if not path.is_dir():
        return path
    files = sorted(path.glob("*.txt"))
    if len(files) != 1:
        raise DataError(f"{path}: holds {len(files)} .txt files where one is looked for")
    return files[0]


def read_attributes(path: Path) -> dict[str, list[str]]:
    """The attributes of each item, as words. Raises: DataError, also for NaN."""

    def refuse(constant: str) -> None:
        raise DataError(f"{path}: {constant} is no attribute")

    try:
        found: Any = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}: {error.msg}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: {error}") from error
    if not isinstance(found, dict):
        raise DataError(f"{path}: must be an object of items and their attributes")
    for item, attributes in found.items():
        words = attributes if isinstance(attributes, list) else [None]
        if not all(isinstance(word, (int, str)) for word in words):
            raise DataError(
                f"{path}: attributes of item {item!r} must be a list of numbers or words"
            )
    return {item: [str(word) for word in attributes] for item, attributes in found.items()}


def _places(lines: Lines) -> tuple[np.ndarray, np.ndarray]:
    """Each action's place in its line, and how many follow it. Shapes: (A,) each."""
    _, start, count = np.unique(lines.user, return_index=True, return_counts=True)
    order = np.argsort(start)
    start, count = start[order], count[order]
    place = np.arange(len(lines.user)) - np.repeat(start, count)
    return place, np.repeat(count, count) - 1 - place


def _held_out(user: np.ndarray, num_after: np.ndarray) -> np.ndarray:
    """1 for the test, 2 for the validation, 0 for what is learned from. Shapes: (A,) each."""
    _, count = np.unique(user, return_counts=True)
    measured = np.repeat(count, count) >= MIN_ITEMS
    return np.where(measured & (num_after < 2), num_after + 1, 0)


def _holdout(
    whole: Log, held_out: np.ndarray, which: int, num_items: int, *, at_most_few: bool = False
) -> Holdout:
    """Readers as they were when the action was about to happen, asked for it."""
    asked = np.flatnonzero(held_out == which)
    if at_most_few:
        asked = few(asked, np.random.default_rng(SPLIT_SEED))
    users, at_s = whole.user[asked], whole.at_s[asked]
    known = (held_out == 0) | (held_out > which)
    # What comes again is asked all the same: it must not count as seen.
    _, user = np.unique(whole.user, return_inverse=True)
    wanted = user * num_items + whole.item
    known &= ~np.isin(wanted, wanted[asked])
    return holdout_of(
        describe(whole, users, at_s),
        known=(whole.user[known], whole.item[known]),
        asked=(users, whole.item[asked]),
        num_items=num_items,
    )
