"""The format of the LightGCN paper: `train.txt` and `test.txt`, a reader and their items a line.

Source: He et al. 2020. All-rank: every item but the reader's own of `train.txt` is ranked.

Rules: an item listed twice for a reader counts once; what `train.txt` lists too is not asked; a
reader of an empty test line is not measured; one that `train.txt` lacks is ranked without history.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from feedrank_core.features.encoding import FeatureSchema, encode_items
from feedrank_trainer.baskets import Baskets
from feedrank_trainer.batching import ItemInputs
from feedrank_trainer.presets import PRESETS

from feedrank_cli.quality.reading import DataError, read_lines
from feedrank_cli.quality.task import Fold, Pairs, Task, few, holdout_of, with_ids_of

CONFIG = PRESETS["baskets"]
HISTORY = 256
VALIDATION_SHARE = 0.1
SPLIT_SEED = 0
"""The validation is part of the protocol: the same whatever the seed of the run."""


def prepare(path: Path) -> dict[str, Task]:
    """The task of a folder with both files. Raises: DataError."""
    train, test = (read_lines(path / name) for name in ("train.txt", "test.txt"))
    ids, place = np.unique(np.concatenate([train.item, test.item]), return_inverse=True)
    known = _once(train.user, place[: len(train.item)])
    asked = _once(test.user, place[len(train.item) :])
    if len(known[0]) == len(np.unique(known[0])):
        raise DataError(f"{path / 'train.txt'}: no user has two items: nothing can be foretold")
    columns = {"item_id": [str(i) for i in ids.tolist()]}
    schema = FeatureSchema.fit(columns, {})
    items = encode_items(schema, columns)
    task = Task(
        schema=schema,
        tuning=_fold(items, *_validation(known), at_most_few=True),
        final=_fold(items, known, asked),
        refit=True,
        config=CONFIG,
        metrics=("recall_at_20", "ndcg_at_20"),
        watched="ndcg_at_20",
        facts={
            "users": len(np.union1d(train.users, test.users)),
            "items": len(ids),
            "actions": len(known[0]) + len(asked[0]),
        },
    )
    if not len(task.final.holdout.readers["user"]):
        raise DataError(f"{path / 'test.txt'}: asks nothing that train.txt does not list")
    return {"": task}


def _once(user: np.ndarray, item: np.ndarray) -> Pairs:
    pairs = np.unique(np.stack([user, item], axis=1), axis=0)
    return pairs[:, 0], pairs[:, 1]


def _validation(known: Pairs) -> tuple[Pairs, Pairs]:
    """A tenth of each reader's items, at least one of two and more, apart from the rest."""
    user, item = known
    order = np.random.default_rng(SPLIT_SEED).permutation(len(user))
    order = order[np.argsort(user[order], kind="stable")]
    _, start, count = np.unique(user[order], return_index=True, return_counts=True)
    rank = np.arange(len(user)) - np.repeat(start, count)
    wanted = np.where(count > 1, np.maximum(1, np.round(count * VALIDATION_SHARE)), 0)
    is_held_out = rank < np.repeat(wanted, count)
    rest, held_out = order[~is_held_out], order[is_held_out]
    return (user[rest], item[rest]), (user[held_out], item[held_out])


def _fold(items: ItemInputs, known: Pairs, asked: Pairs, *, at_most_few: bool = False) -> Fold:
    source = Baskets.of(*known, length=HISTORY)
    users = np.unique(asked[0])
    if at_most_few:
        users = few(users, np.random.default_rng(SPLIT_SEED))
    readers = source.describe(users, seed=SPLIT_SEED)
    num_items = len(items["id_weight"])
    holdout = holdout_of(readers, known=known, asked=asked, num_items=num_items)
    return Fold(source, with_ids_of(items, known[1]), holdout)
