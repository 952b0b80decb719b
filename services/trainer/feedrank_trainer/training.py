"""Fits the two towers to a source of examples; the same seed gives the same weights."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import torch
from feedrank_core.features.encoding import FeatureSchema
from feedrank_core.models.two_tower import TwoTower, sampled_softmax

from feedrank_trainer.batching import ItemInputs, Source, assemble, log_frequencies, steps
from feedrank_trainer.configuration import TrainingConfig

MAX_GRADIENT = 5.0
"""Longest gradient of a step: one strange batch must not throw away what was learned."""


@dataclass(frozen=True)
class Epoch:
    """How an epoch went; `score` is the later slice's, None where there is none."""

    number: int
    steps: int
    loss: float
    score: float | None
    elapsed_s: float


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
    make_repeatable(seed)
    model = start or new_model(schema, config)
    log_q_N = log_frequencies(source, len(items["id_buckets"]), config)
    training = Training(model, source, items, log_q_N, config, np.random.default_rng(seed))
    best = Best()
    started, num_steps = time.monotonic(), 0
    for number in range(1, config.epochs + 1):
        losses = training.epoch(number, max_steps=config.max_steps - num_steps)
        num_steps += len(losses)
        score = None if validate is None else validate(model.eval())
        loss = float(np.mean(losses)) if losses else math.nan
        report(Epoch(number, num_steps, loss, score, time.monotonic() - started))
        if score is not None:
            best.consider(score, model)
        if best.num_waited >= config.patience or num_steps >= config.max_steps:
            break
    if best.state is not None:
        model.load_state_dict(best.state)
    return model.eval()


def make_repeatable(seed: int) -> None:
    """Let torch draw from the seed, and add in one order."""
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=False)
    # Nothing here reads memory before it is written, and filling it takes time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # pyright: ignore


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


@dataclass
class Training:
    """A model on its way, an epoch at a time."""

    model: TwoTower
    source: Source
    items: ItemInputs
    log_q_N: np.ndarray
    config: TrainingConfig
    rng: np.random.Generator
    optimiser: torch.optim.Optimizer = field(init=False)

    def __post_init__(self) -> None:
        self.optimiser = optimiser_of(self.model, self.config)

    def epoch(self, number: int, *, max_steps: int) -> list[float]:
        """One pass, or its first steps; answers the loss of each."""
        done = (number - 1) / self.config.epochs
        for group in self.optimiser.param_groups:
            share = 1 - done * (1 - self.config.last_learning_rate)
            group["lr"] = self.config.learning_rate * share
        self.model.train()
        losses: list[float] = []
        for step in islice(steps(self.source, self.config, self.rng), max_steps):
            batch = assemble(step, self.items, self.log_q_N, config=self.config, rng=self.rng)
            loss = sampled_softmax(*self.model(batch), batch.row)
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), MAX_GRADIENT)
            self.optimiser.step()
            losses.append(loss.item())
        return losses
