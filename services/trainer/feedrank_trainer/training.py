"""Fits the two towers to a source of examples; the same seed gives the same weights."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import numpy as np
import torch
from feedrank_core.features.encoding import FeatureSchema
from feedrank_core.models.two_tower import Batch, TwoTower, sampled_softmax

from feedrank_trainer.examples import Examples, concatenate, select

ItemInputs = dict[str, np.ndarray]
HISTORY_FIELDS = ("history", "history_actions", "history_ages_s")
USER_FIELDS = ("history_actions", "history_ages_s", "profile", "interests", "dense")


@dataclass(frozen=True)
class TrainingConfig:
    """What a run may turn. First choices, not tuned: the ablations come with ranking quality.

    `in_batch` makes the positives of a batch each other's negatives. `history` is a name of
    USER_TOWERS; a `temperature` of 0 means dot products of a learned scale. `last_learning_rate`
    is the share of it left after all epochs, a straight line from the first. Of `pool` batches
    each takes histories of like length.
    """

    epochs: int = 8
    batch_size: int = 512
    num_uniform: int = 512
    learning_rate: float = 3e-3
    weight_decay: float = 1e-5
    dropout: float = 0.2
    id_dropout: float = 0.1
    history_dropout: float = 0.1
    history: str = "attention"
    temperature: float = 0.0
    in_batch: bool = True
    last_learning_rate: float = 1.0
    pool: int = 1
    patience: int = 2
    max_steps: int = 100_000


@dataclass(frozen=True)
class Epoch:
    """How an epoch went; `score` is the later slice's, None where there is none."""

    number: int
    steps: int
    loss: float
    score: float | None
    elapsed_s: float


class Source(Protocol):
    """Where examples come from: memory or shards."""

    def pieces(self, rng: np.random.Generator) -> Iterator[Examples]:
        """Shuffled pieces that fit in memory."""
        ...


def fit(
    source: Source,
    items: ItemInputs,
    schema: FeatureSchema,
    *,
    config: TrainingConfig,
    seed: int,
    validate: Callable[[TwoTower], float] | None = None,
    report: Callable[[Epoch], None] = lambda epoch: None,
    start: TwoTower | None = None,
) -> TwoTower:
    """The towers with the best score on the later slice, or the last ones without a slice.

    Stops after `patience` epochs without a better score, or after `max_steps` batches, even within
    an epoch: never by a clock, so that a seed means the same weights on a slow machine.
    """
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=False)
    # Nothing here reads memory before it is written, and filling it takes time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # pyright: ignore
    rng = np.random.default_rng(seed)
    model = start or new_model(schema, config)
    optimiser = optimiser_of(model, config)
    log_q_N = log_frequencies(source, len(items["id_buckets"]), config)
    best = Best()
    started, steps = time.monotonic(), 0
    for number in range(1, config.epochs + 1):
        done = (number - 1) / config.epochs
        for group in optimiser.param_groups:
            group["lr"] = config.learning_rate * (1 - done * (1 - config.last_learning_rate))
        losses = run_epoch(
            model,
            optimiser,
            source,
            items,
            log_q_N,
            config=config,
            rng=rng,
            max_steps=config.max_steps - steps,
        )
        steps += len(losses)
        score = None if validate is None else validate(model.eval())
        loss = float(np.mean(losses)) if losses else math.nan
        report(Epoch(number, steps, loss, score, time.monotonic() - started))
        if score is not None:
            best.consider(score, model)
        if best.num_waited >= config.patience or steps >= config.max_steps:
            break
    if best.state is not None:
        model.load_state_dict(best.state)
    return model.eval()


def new_model(schema: FeatureSchema, config: TrainingConfig) -> TwoTower:
    """Untrained towers of the configuration."""
    return TwoTower(
        schema,
        dropout=config.dropout,
        id_dropout=config.id_dropout,
        history=config.history,
        temperature=config.temperature,
    )


def optimiser_of(model: TwoTower, config: TrainingConfig) -> torch.optim.Optimizer:
    """Fused: one pass over the tables instead of one for each step of the formula."""
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.optim.AdamW(
        learned, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )


@dataclass
class Best:
    """The weights of the best score so far, and how many epochs came since."""

    score: float = -math.inf
    state: dict[str, torch.Tensor] | None = None
    num_waited: int = 0

    def consider(self, score: float, model: TwoTower) -> None:
        """Keep these weights where they are better."""
        self.num_waited += 1
        if score > self.score:
            self.score, self.state, self.num_waited = score, snapshot(model), 0


def snapshot(model: TwoTower) -> dict[str, torch.Tensor]:
    """A copy of the weights."""
    return {name: value.clone() for name, value in model.state_dict().items()}


def run_epoch(
    model: TwoTower,
    optimiser: torch.optim.Optimizer,
    source: Source,
    items: ItemInputs,
    log_q_N: np.ndarray,
    *,
    config: TrainingConfig,
    rng: np.random.Generator,
    max_steps: int,
) -> list[float]:
    """One pass, or its first batches; answers the loss of each."""
    model.train()
    losses: list[float] = []
    for examples in islice(batches(source.pieces(rng), config, rng), max_steps):
        batch = assemble(examples, items, log_q_N, config=config, rng=rng)
        own_P, score_BC, hidden_BC = model(batch)
        loss = sampled_softmax(own_P, score_BC, hidden_BC, batch.row)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()
        losses.append(loss.item())
    return losses


def batches(
    pieces: Iterator[Examples], config: TrainingConfig, rng: np.random.Generator
) -> Iterator[Examples]:
    """Batches of one size; what is left of a piece joins the next, the last may be short."""
    rest: Examples | None = None
    for piece in pieces:
        joined = piece if rest is None else concatenate([rest, piece])
        count = len(joined["user"])
        whole = count - count % config.batch_size
        for rows in pooled(joined["history"][:whole], config, rng):
            yield select(joined, rows)
        rest = select(joined, np.arange(whole, count))
    if rest is not None and len(rest["user"]) > 1:
        yield rest


def pooled(
    history: np.ndarray, config: TrainingConfig, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """The rows of each batch: long histories together, so that short ones need no padding."""
    rows, size = np.arange(len(history)), config.batch_size
    starts = rows[::size]
    if config.pool > 1:
        length = (history >= 0).sum(axis=1)
        pools = np.split(rows, rows[config.pool * size :: config.pool * size])
        rows = np.concatenate([pool[np.argsort(length[pool], kind="stable")] for pool in pools])
        starts = rng.permutation(starts)
    for start in starts:
        yield rows[start : start + size]


def log_frequencies(source: Source, num_items: int, config: TrainingConfig) -> np.ndarray:
    """Log of the expected columns of a batch that hold each item. Shapes: (N,) float32."""
    uniform = config.num_uniform / num_items
    if not config.in_batch:
        return np.full(num_items, np.log(uniform), np.float32)
    counts, num_examples = np.zeros(num_items), 0
    for piece in source.pieces(np.random.default_rng(0)):
        positive = piece["positive"]
        counts += np.bincount(positive[positive >= 0], minlength=num_items)
        num_examples += len(positive)
    in_batch = config.batch_size * counts / max(1, num_examples)
    return np.log(in_batch + uniform).astype(np.float32)


def assemble(
    examples: Examples,
    items: ItemInputs,
    log_q_N: np.ndarray,
    *,
    config: TrainingConfig,
    rng: np.random.Generator,
) -> Batch:
    """The batch on its distinct items, with shared uniform negatives drawn."""
    num_items = len(log_q_N)
    examples = shortened(examples)
    negative = rng.integers(0, num_items, config.num_uniform)
    positives = examples["positive"].reshape(len(examples["user"]), -1)
    row, _ = np.nonzero(positives >= 0)
    positive = positives[positives >= 0]
    history = examples["history"]
    mask = (history >= 0) & (rng.random(history.shape) >= config.history_dropout)
    needed = np.concatenate([history[mask], positive, negative])
    distinct, place = np.unique(needed, return_inverse=True)
    local = np.zeros(history.shape, np.int64)
    local[mask] = place[: mask.sum()]
    rest = place[mask.sum() :]
    users = {name: torch.from_numpy(examples[name]) for name in USER_FIELDS}
    users["history_mask"] = torch.from_numpy(mask.astype(np.float32))
    return Batch(
        item_inputs=gather_items(items, distinct),
        user_inputs=users,
        history=torch.from_numpy(local),
        positive=torch.from_numpy(rest[: len(positive)]),
        row=torch.from_numpy(row),
        negative=torch.from_numpy(rest[len(positive) :]),
        log_q=torch.from_numpy(log_q_N[distinct]),
        user=torch.from_numpy(examples["user"]),
        in_batch=config.in_batch,
    )


def shortened(examples: Examples) -> Examples:
    """The examples with histories as wide as the longest of them, and one place at least."""
    used = np.flatnonzero((examples["history"] >= 0).any(axis=0))
    first = int(used[0]) if len(used) else examples["history"].shape[1] - 1
    return examples | {name: examples[name][:, first:] for name in HISTORY_FIELDS}


def gather_items(items: ItemInputs, rows: np.ndarray) -> dict[str, torch.Tensor]:
    """Item inputs of some rows, text cut to the longest of them."""
    gathered = {name: values[rows] for name, values in items.items()}
    for bag in ("text", "tags"):
        longest = max(1, int((gathered[bag] != 0).sum(axis=1).max(initial=1)))
        gathered[bag] = gathered[bag][:, :longest]
    return {name: torch.from_numpy(values) for name, values in gathered.items()}


@torch.no_grad()
def item_vectors(model: TwoTower, items: ItemInputs, *, chunk: int = 8192) -> np.ndarray:
    """Vectors of the whole catalogue. Shapes: (N, D) float32."""
    rows = np.arange(len(items["id_buckets"]))
    parts = np.array_split(rows, max(1, math.ceil(len(rows) / chunk)))
    return np.concatenate([model.items(**gather_items(items, part)).numpy() for part in parts])


@torch.no_grad()
def user_vectors(
    model: TwoTower, readers: Examples, vectors: np.ndarray, *, chunk: int = 2048
) -> np.ndarray:
    """Vectors of readers as described. Shapes: (B, D) float32."""
    found: list[np.ndarray] = []
    for start in range(0, len(readers["user"]), chunk):
        stop = min(start + chunk, len(readers["user"]))
        part = shortened(select(readers, np.arange(start, stop)))
        mask = part["history"] >= 0
        history = vectors[np.where(mask, part["history"], 0)] * mask[:, :, None]
        inputs = {name: torch.from_numpy(part[name]) for name in USER_FIELDS}
        inputs["history_vectors"] = torch.from_numpy(history.astype(np.float32))
        inputs["history_mask"] = torch.from_numpy(mask.astype(np.float32))
        found.append(model.users(**inputs).numpy())
    return np.concatenate(found)
