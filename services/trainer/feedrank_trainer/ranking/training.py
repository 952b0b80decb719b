"""Fits the ranker to impressions; the same seed gives the same weights."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from feedrank_core.contracts.slates import HEADS, Head
from feedrank_core.features.encoding import FeatureSchema
from feedrank_core.models.item_tower import history_vectors, vectors_at
from feedrank_core.models.ranker import Ranker, Widths
from torch import Tensor, nn

from feedrank_trainer.batching import ItemInputs
from feedrank_trainer.optimiser import Optimiser
from feedrank_trainer.ranking.batching import RankingBatch, assemble, shuffled
from feedrank_trainer.ranking.examples import RankingExamples
from feedrank_trainer.training import make_repeatable

DWELL_WEIGHT = 0.2
"""Of dwell's squared error beside the heads' cross-entropy, so that it drowns no rare head."""

MIN_RATE = 1e-5
MIN_SPREAD = 1e-3
"""A feature that hardly varies is left near 0 rather than blown up."""


@dataclass(frozen=True)
class RankerConfig:
    """What a training run may turn. `attention`: candidates read the history (else DCN alone).

    One epoch: from the second on the tables of ids know the clicks by heart, and later slates are
    ranked worse with each. Source: Zhang et al. 2022 (Towards Understanding the Overfitting
    Phenomenon of Deep Click-Through Rate Prediction Models).
    """

    attention: bool = True
    epochs: int = 1
    batch_size: int = 192
    learning_rate: float = 2e-3
    last_learning_rate: float = 0.05
    weight_decay: float = 1e-5
    dropout: float = 0.1


@dataclass(frozen=True)
class RankerEpoch:
    """How an epoch went."""

    number: int
    steps: int
    loss: float
    elapsed_s: float


def fit_ranker(
    examples: RankingExamples,
    items: ItemInputs,
    schema: FeatureSchema,
    *,
    config: RankerConfig,
    seed: int,
    report: Callable[[RankerEpoch], None] = lambda epoch: None,
) -> Ranker:
    """The ranker after all epochs, ready to score."""
    make_repeatable(seed)
    model = Ranker(schema, widths_of(examples), attention=config.attention, dropout=config.dropout)
    _begin_at_means(model, examples)
    optimiser = Optimiser(model, config.learning_rate, config.weight_decay)
    rng = np.random.default_rng(seed)
    total = config.epochs * math.ceil(examples.num_slates / config.batch_size)
    began, step = time.monotonic(), 0
    for number in range(1, config.epochs + 1):
        losses = []
        model.train()
        for slates in shuffled(examples, config.batch_size, rng):
            share = 1 - (step / total) * (1 - config.last_learning_rate)
            optimiser.set_rate(config.learning_rate * share)
            batch = assemble(examples, slates, items)
            loss = masked_loss(forward(model, batch, with_position=True), batch.label_BPH)
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
            step += 1
        report(RankerEpoch(number, step, float(np.mean(losses)), time.monotonic() - began))
    return model.eval()


def widths_of(examples: RankingExamples) -> Widths:
    """How many dense features the examples have."""
    return Widths(
        item=examples.item_dense_RF.shape[1],
        pair=examples.pair_dense_RF.shape[1],
        user=examples.user_dense_SF.shape[1],
    )


def forward(model: Ranker, batch: RankingBatch, *, with_position: bool) -> Tensor:
    """Logits of all heads. Shapes: (B, P, H)."""
    logit_BPH = model.scorer(**scorer_inputs(model, batch))
    return logit_BPH + model.of_position(batch.position_BP) if with_position else logit_BPH


def scorer_inputs(model: Ranker, batch: RankingBatch) -> dict[str, Tensor]:
    """All that the scorer reads, with the vectors that the item tower gives."""
    item_UD = model.items(**batch.item_inputs)
    mask_BL, mask_BM = batch.inputs["history_mask"], batch.inputs["shown_mask"]
    return batch.inputs | {
        "item_vectors": vectors_at(item_UD, batch.item_BP),
        "history_vectors": history_vectors(item_UD, batch.history_BL, mask_BL),
        "shown_vectors": history_vectors(item_UD, batch.shown_BM, mask_BM),
    }


def masked_loss(logit_BPH: Tensor, label_BPH: Tensor) -> Tensor:
    """Cross-entropy of every head whose label is known, and dwell's squared error.

    Each head's is a mean over what is known of it; their sum is the loss.
    """
    known_BPH = ~torch.isnan(label_BPH)
    label_BPH = torch.where(known_BPH, label_BPH, 0.0)
    dwell = HEADS.index(Head.DWELL)
    entropy_BPH = nn.functional.binary_cross_entropy_with_logits(
        logit_BPH[..., :dwell], label_BPH[..., :dwell], reduction="none"
    )
    error_BP1 = DWELL_WEIGHT * (logit_BPH[..., dwell:] - label_BPH[..., dwell:]).square()
    loss_BPH = torch.cat([entropy_BPH, error_BP1], dim=2) * known_BPH
    return (loss_BPH.sum(dim=(0, 1)) / known_BPH.sum(dim=(0, 1)).clamp(min=1)).sum()


@torch.no_grad()
def logits(
    model: Ranker, examples: RankingExamples, items: ItemInputs, *, chunk: int = 1024
) -> np.ndarray:
    """Every impression's logits, as served: without its position. Shapes: (R, H) float32."""
    model.eval()
    found = np.empty((len(examples.impressions), len(HEADS)), np.float32)
    for start in range(0, examples.num_slates, chunk):
        slates = np.arange(start, min(start + chunk, examples.num_slates))
        batch = assemble(examples, slates, items)
        found[batch.rows] = forward(model, batch, with_position=False).flatten(0, 1)[batch.place]
    return found


@torch.no_grad()
def _begin_at_means(model: Ranker, examples: RankingExamples) -> None:
    """Standardise dense features, and let the untrained heads foretell their means."""
    parts = (examples.item_dense_RF, examples.pair_dense_RF, examples.user_dense_SF)
    mean = np.concatenate([part.mean(axis=0, dtype=np.float64) for part in parts])
    spread = np.concatenate([part.std(axis=0, dtype=np.float64) for part in parts])
    model.scorer.dense_mean.copy_(torch.from_numpy(mean))
    model.scorer.dense_scale.copy_(torch.from_numpy(1 / np.maximum(spread, MIN_SPREAD)))
    label_RH = examples.impressions.label_RH
    num_known_H = np.maximum(np.isfinite(label_RH).sum(axis=0), 1)
    rate_H = torch.from_numpy((np.nansum(label_RH, axis=0) / num_known_H).astype(np.float32))
    is_dwell_H = torch.tensor([head is Head.DWELL for head in HEADS])
    logit_H = torch.logit(rate_H.clamp(MIN_RATE, 1 - MIN_RATE))
    model.scorer.towers.bias.copy_(torch.where(is_dwell_H, rate_H, logit_H))
