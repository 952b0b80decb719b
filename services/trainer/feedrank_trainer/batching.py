"""Batches of a source's examples, on the distinct items that each needs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import torch
from feedrank_core.models.two_tower import Batch
from feedrank_core.models.user_tower import Asked

from feedrank_trainer.configuration import TrainingConfig
from feedrank_trainer.examples import Examples, concatenate, select
from feedrank_trainer.ranks import Ranks
from feedrank_trainer.windows import Windows, newest_before

ItemInputs = dict[str, np.ndarray]
HISTORY_FIELDS = ("history", "history_actions", "history_ages_s")
PROFILE_FIELDS = ("profile", "interests", "dense")
USER_FIELDS = (*HISTORY_FIELDS[1:], *PROFILE_FIELDS)


class Source(Protocol):
    """Where examples come from: memory, shards or baskets.

    With `is_ordered` the examples of a reader lie in each other's histories.
    """

    is_ordered: ClassVar[bool]

    def pieces(self, rng: np.random.Generator) -> Iterator[Examples]:
        """Shuffled pieces that fit in memory."""
        ...


@dataclass(frozen=True)
class Step:
    """Examples of one step, (Q, ...), and the histories they lie in, (B, ...).

    Without `window` each example has its own. Shapes: window (Q,) int64 into B.
    """

    examples: Examples
    histories: Examples
    window: np.ndarray | None = None


def steps(source: Source, config: TrainingConfig, rng: np.random.Generator) -> Iterator[Step]:
    """One pass over the source."""
    pieces = source.pieces(rng)
    reads_once = source.is_ordered and config.asks_places
    return windowed(pieces, config, rng) if reads_once else single(pieces, config, rng)


def windowed(
    pieces: Iterator[Examples], config: TrainingConfig, rng: np.random.Generator
) -> Iterator[Step]:
    """Steps of whole windows: `batch_size` examples, give or take one; a piece's last is short."""
    for piece in pieces:
        windows = Windows.of(piece)
        shuffled = rng.permutation(len(windows.last))
        size = np.diff(windows.starts)[shuffled]
        for some in pooled(piece["history"][windows.last[shuffled]], size, config, rng):
            chosen = shuffled[some]
            rows, window = windows.members(chosen)
            yield Step(select(piece, rows), select(piece, windows.last[chosen]), window)


def single(
    pieces: Iterator[Examples], config: TrainingConfig, rng: np.random.Generator
) -> Iterator[Step]:
    """Steps of one size; what is left of a piece joins the next, the last may be short."""
    rest: Examples | None = None
    for piece in pieces:
        joined = piece if rest is None else concatenate([rest, piece])
        count = len(joined["user"])
        whole = count - count % config.batch_size
        for rows in pooled(joined["history"][:whole], np.ones(whole, int), config, rng):
            examples = select(joined, rows)
            yield Step(examples, examples)
        rest = select(joined, np.arange(whole, count))
    if rest is not None and len(rest["user"]) > 1:
        yield Step(rest, rest)


def pooled(
    history: np.ndarray, size: np.ndarray, config: TrainingConfig, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """The rows of each batch: long histories together, so that short ones need no padding.

    Shapes: history (B, L), size (B,), how many examples each row counts for.
    """
    rows, batch_size = np.arange(len(history)), config.batch_size
    if config.pool > 1:
        length = (history >= 0).sum(axis=1)
        pool = (np.cumsum(size) - 1) // (config.pool * batch_size)
        rows = np.lexsort((length, pool))
    batch = (np.cumsum(size[rows]) - 1) // batch_size
    _before, *batches = np.split(rows, np.flatnonzero(np.diff(batch, prepend=-1)))
    order = rng.permutation(len(batches)) if config.pool > 1 else range(len(batches))
    for number in order:
        yield batches[number]


def log_frequencies(
    source: Source, num_items: int, config: TrainingConfig, ranks: Ranks
) -> np.ndarray:
    """Log of the expected columns of a batch that hold each item, 0 where none is corrected.

    Shapes: (N,) float32.
    """
    if not config.log_q:
        return np.zeros(num_items, np.float32)
    uniform = config.num_uniform / (config.against or num_items)
    if not config.in_batch:
        return np.full(num_items, np.log(uniform), np.float32)
    counts, num_rows = np.zeros(num_items), 0
    for piece in source.pieces(np.random.default_rng(0)):
        positive = piece["positive"]
        counts += np.bincount(positive[positive >= 0], minlength=num_items)
        num_rows += len(positive)
    total = ranks.sum(np.append(counts, num_rows))
    in_batch = config.batch_size * total[:-1] / max(1, total[-1])
    return np.log(in_batch + uniform).astype(np.float32)


def assemble(
    step: Step,
    items: ItemInputs,
    log_q_N: np.ndarray,
    *,
    config: TrainingConfig,
    rng: np.random.Generator,
) -> Batch:
    """The step on its distinct items, with shared uniform negatives drawn."""
    num_items = len(log_q_N)
    histories = shortened(step.histories)
    negative = rng.integers(0, num_items, config.num_uniform)
    positives = step.examples["positive"].reshape(len(step.examples["user"]), -1)
    row, _ = np.nonzero(positives >= 0)
    positive = positives[positives >= 0]
    history = histories["history"]
    mask = (history >= 0) & (rng.random(history.shape) >= config.history_dropout)
    needed = np.concatenate([history[mask], positive, negative])
    distinct, place = np.unique(needed, return_inverse=True)
    local = np.zeros(history.shape, np.int64)
    local[mask] = place[: mask.sum()]
    rest = place[mask.sum() :]
    users = {name: torch.from_numpy(histories[name]) for name in HISTORY_FIELDS[1:]}
    users |= {name: torch.from_numpy(step.examples[name]) for name in PROFILE_FIELDS}
    users["history_mask"] = torch.from_numpy(mask.astype(np.float32))
    return Batch(
        item_inputs=gather_items(items, distinct),
        user_inputs=users,
        history=torch.from_numpy(local),
        positive=torch.from_numpy(rest[: len(positive)]),
        row=torch.from_numpy(row),
        negative=torch.from_numpy(rest[len(positive) :]),
        log_q=torch.from_numpy(log_q_N[distinct]),
        user=torch.from_numpy(histories["user"]),
        in_batch=config.in_batch,
        asked=None if step.window is None else asked_of(step, histories, step.window),
    )


def asked_of(step: Step, histories: Examples, window: np.ndarray) -> Asked:
    """Where in its window's history each example lies."""
    age_s = (histories["at_s"][window] - step.examples["at_s"]).astype(np.float32)
    ages, is_there = histories["history_ages_s"][window], histories["history"][window] >= 0
    return Asked(
        history=torch.from_numpy(window),
        place=torch.from_numpy(newest_before(ages, is_there, age_s)),
        age_s=torch.from_numpy(age_s),
    )


def shortened(examples: Examples) -> Examples:
    """The examples with histories as wide as the longest of them, and one place at least."""
    first = first_used(examples["history"])
    return examples | {name: examples[name][:, first:] for name in HISTORY_FIELDS}


def without_absent(items: ItemInputs) -> ItemInputs:
    """The inputs without vectors that no item has, so that no step carries zeros for them."""
    has_text, has_image = (column.any() for column in items["vector_mask"].T)
    found = dict(items)
    if not has_image:
        found["image_vector"] = items["image_vector"][:, :0]
        if not has_text:
            found["text_vector"] = items["text_vector"][:, :0]
    return found


def first_used(history_BL: np.ndarray) -> int:
    """The first place where any history holds an item; the last one where none does."""
    used = np.flatnonzero((history_BL >= 0).any(axis=0))
    return int(used[0]) if len(used) else history_BL.shape[1] - 1


def gather_items(items: ItemInputs, rows: np.ndarray) -> dict[str, torch.Tensor]:
    """Item inputs of some rows, text cut to the longest of them."""
    gathered = {name: values[rows] for name, values in items.items()}
    for bag in ("text", "tags"):
        longest = max(1, int((gathered[bag] != 0).sum(axis=1).max(initial=1)))
        gathered[bag] = gathered[bag][:, :longest]
    return {name: torch.from_numpy(values) for name, values in gathered.items()}
