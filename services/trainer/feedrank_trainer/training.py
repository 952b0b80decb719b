"""Fits the two towers to a source of examples; the same seed gives the same weights."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
import xxhash
from feedrank_core.features.encoding import FeatureSchema
from feedrank_core.models.two_tower import LOSSES, TwoTower

from feedrank_trainer.batching import (
    ItemInputs,
    Source,
    assemble,
    log_frequencies,
    steps,
    without_absent,
)
from feedrank_trainer.checkpoint import Checkpoint, State
from feedrank_trainer.configuration import TrainingConfig
from feedrank_trainer.optimiser import Optimiser
from feedrank_trainer.ranks import Ranks
from feedrank_trainer.weights import Best, RunningMean


class DeviceError(RuntimeError):
    """The device that was asked for is not there."""


@dataclass(frozen=True)
class Epoch:
    """How an epoch went; `score` is the later slice's, None where there is none.

    With `is_resumed` an earlier try has run it, and this one goes on after it.
    """

    number: int
    steps: int
    loss: float
    score: float | None
    elapsed_s: float
    is_resumed: bool = False


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
    device: str = "cpu",
    checkpoint: Checkpoint | None = None,
    ranks: Ranks = Ranks(),  # noqa: B008 - frozen
) -> TwoTower:
    """The towers with the best score on the later slice, or the last ones without a slice.

    Stops after `patience` epochs without a better score, or after `max_steps` batches, even within
    an epoch: never by a clock, so that a seed means the same weights on a slow machine. With a
    checkpoint an interrupted training goes on after its last whole epoch, to the same weights.
    Of several ranks each is given its own share as `source`; all return the same towers, which are
    on the CPU.

    Raises: DeviceError, CheckpointError.
    """
    place = device_of(device)
    make_repeatable(seed)
    model = (start or new_model(schema, config)).to(place)
    training = Training.of(model, source, items, config, seed=seed, ranks=ranks)
    made_for = asdict(config) | {
        "seed": seed,
        "schema": _digest(schema),
        "processes": ranks.size,
        "device": place.type,
    }
    if checkpoint is not None and (state := checkpoint.load(made_for)) is not None:
        training.load(state)
        report(replace(training.last, is_resumed=True))
    began, measured = time.monotonic() - training.last.elapsed_s, training.mean.model
    while not training.is_over:
        losses = training.epoch()
        score = None if validate is None else ranks.told(lambda: validate(measured.eval()))
        training.conclude(losses, score, elapsed_s=time.monotonic() - began)
        if checkpoint is not None:
            state = training.state()
            if ranks.is_first:
                checkpoint.save(state, made_for)
        report(training.last)
    if training.best.state is not None:
        measured.load_state_dict(training.best.state)
    return measured.eval().cpu()


def _digest(schema: FeatureSchema) -> str:
    return xxhash.xxh3_64_hexdigest(schema.model_dump_json().encode())


def device_of(name: str) -> torch.device:
    """The device of that name. Raises: DeviceError where this machine, or its torch, has none."""
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise DeviceError(f"there is no device {name!r} here ({reason}); cpu always is") from error
    return device


def make_repeatable(seed: int) -> None:
    """Let torch draw from the seed, and add in one order."""
    # cuBLAS adds in one order only with a workspace of its own, which it asks for at its start.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
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
        kin=config.kin,
        num_blocks=config.num_blocks,
    )


@dataclass
class Training:
    """A model on its way, an epoch at a time. `config` is of one rank: its share of a batch."""

    model: TwoTower
    source: Source
    items: ItemInputs
    log_q_N: np.ndarray
    config: TrainingConfig
    rng: np.random.Generator
    ranks: Ranks
    optimiser: Optimiser = field(init=False)
    mean: RunningMean = field(init=False)
    best: Best = field(default_factory=Best)
    last: Epoch = Epoch(0, 0, math.nan, None, 0.0)

    def __post_init__(self) -> None:
        self.optimiser = Optimiser(
            self.model, self.config.learning_rate, self.config.weight_decay, self.ranks
        )
        self.mean = RunningMean(self.model, self.config.averaging)
        self.loss = LOSSES[self.config.loss]

    @classmethod
    def of(
        cls,
        model: TwoTower,
        source: Source,
        items: ItemInputs,
        config: TrainingConfig,
        *,
        seed: int,
        ranks: Ranks,
    ) -> Training:
        """A training at its start: all ranks have these weights and draw apart from here on."""
        config = replace(config, batch_size=max(1, config.batch_size // ranks.size))
        apart = (ranks.rank,) if ranks.rank else ()
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=apart))
        if ranks.rank:
            torch.manual_seed(int(rng.integers(1 << 62)))
        log_q_N = log_frequencies(source, len(items["id_buckets"]), config, ranks)
        return cls(model, source, without_absent(items), log_q_N, config, rng, ranks)

    @property
    def is_over(self) -> bool:
        """Whether no epoch is left to run, or none would be of use."""
        config, last = self.config, self.last
        is_done = last.number >= config.epochs or last.steps >= config.max_steps
        return is_done or self.best.num_waited >= config.patience

    def epoch(self) -> list[float]:
        """One pass, or its first steps; answers the loss of each."""
        share = 1 - self.last.number / self.config.epochs * (1 - self.config.last_learning_rate)
        self.optimiser.set_rate(self.config.learning_rate * share)
        self.model.train()
        losses: list[float] = []
        left = islice(
            steps(self.source, self.config, self.rng), self.config.max_steps - self.last.steps
        )
        for step in self.ranks.together(left):
            batch = assemble(step, self.items, self.log_q_N, config=self.config, rng=self.rng)
            batch = batch.to(self.model.device)
            own_P, score_QC, hidden_QC = self.model(batch)
            loss = self.loss(own_P, score_QC, hidden_QC, batch.row)
            loss.backward()
            self.optimiser.step()
            losses.append(loss.item())
        # Each rank has seen its own batches; what they noted of them becomes one again.
        noted = list(self.model.buffers())
        for mine, mean in zip(noted, self.ranks.average(noted), strict=True):
            mine.copy_(mean)
        self.mean.add()
        return list(self.ranks.sum(np.array(losses)) / self.ranks.size)

    def conclude(self, losses: list[float], score: float | None, *, elapsed_s: float) -> None:
        """Note how the epoch went."""
        loss = float(np.mean(losses)) if losses else math.nan
        self.last = Epoch(
            self.last.number + 1, self.last.steps + len(losses), loss, score, elapsed_s
        )
        if score is not None:
            self.best.consider(score, self.mean.model)

    def state(self) -> State:
        """What another one needs to go on from here; every rank takes part."""
        return {
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state(),
            "chance": self.ranks.gather(_chance(self.rng, self.model.device)),
            "mean": self.mean.state(),
            "best": vars(self.best),
            "last": asdict(self.last),
        }

    def load(self, state: State) -> None:
        """Go on from a state."""
        self.model.load_state_dict(state["model"])
        self.optimiser.load(state["optimiser"])
        self.mean.load(state["mean"])
        _set_chance(self.rng, self.model.device, state["chance"][self.ranks.rank])
        self.best, self.last = Best(**state["best"]), Epoch(**state["last"])


def _chance(rng: np.random.Generator, device: torch.device) -> dict[str, Any]:
    """How all that draws goes on; an accelerator draws for itself."""
    own = None
    if device.type != "cpu":
        own = torch.get_device_module(device).get_rng_state(device)
    return {"numpy": rng.bit_generator.state, "torch": torch.get_rng_state(), "device": own}


def _set_chance(rng: np.random.Generator, device: torch.device, chance: dict[str, Any]) -> None:
    rng.bit_generator.state = chance["numpy"]
    torch.set_rng_state(chance["torch"])
    if device.type != "cpu":
        torch.get_device_module(device).set_rng_state(chance["device"], device)
