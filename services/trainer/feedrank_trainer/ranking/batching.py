"""Batches of the ranker: slates of like length, on the distinct items that they need."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from feedrank_core.models.ranker import NUM_POSITIONS
from torch import Tensor

from feedrank_trainer.batching import ItemInputs, first_used, gather_items
from feedrank_trainer.ranking.examples import RankingExamples

POOL = 16
"""Batches that are cut from one sorted pool of slates, so that pages need little padding."""


@dataclass(frozen=True)
class RankingBatch:
    """Slates of at most P places. Items are places among the batch's U distinct ones.

    Shapes: item_inputs (U, ...); item_BP (B, P) and history_BL (B, L) int64 into U; inputs, the
    scorer's by name without the vectors; position_BP int64; label_BPH float32, NaN where a head
    is not known and in places that hold nothing; rows (K,) and place (K,) int64, which impression
    stands where in the flattened (B * P).
    """

    item_inputs: dict[str, Tensor]
    item_BP: Tensor
    history_BL: Tensor
    inputs: dict[str, Tensor]
    position_BP: Tensor
    label_BPH: Tensor
    rows: np.ndarray
    place: np.ndarray


def shuffled(
    examples: RankingExamples, batch_size: int, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """The slates of each batch, every slate once, in a drawn order."""
    size = np.diff(examples.start_S)
    order = rng.permutation(examples.num_slates)
    pools = np.split(order, np.arange(POOL * batch_size, len(order), POOL * batch_size))
    order = np.concatenate([pool[np.argsort(size[pool], kind="stable")] for pool in pools])
    for start in rng.permutation(np.arange(0, len(order), batch_size)):
        yield order[start : start + batch_size]


def assemble(
    examples: RankingExamples,
    slates: np.ndarray,
    items: ItemInputs,
    *,
    whole_history: bool = False,
) -> RankingBatch:
    """The batch of some slates; histories as wide as their longest unless `whole_history`."""
    start, size = examples.start_S[slates], np.diff(examples.start_S)[slates]
    num, widest = len(slates), int(size.max())
    of_slate = np.repeat(np.arange(num), size)
    column = np.arange(len(of_slate)) - np.repeat(np.cumsum(size) - size, size)
    rows = np.repeat(start, size) + column
    place = of_slate * widest + column

    def padded(values: np.ndarray, fill: float = 0) -> Tensor:
        shape = (num * widest, *values.shape[1:])
        filled = np.full(shape, fill, values.dtype)
        filled[place] = values
        return torch.from_numpy(filled.reshape(num, widest, *values.shape[1:]))

    shown = examples.impressions
    history = examples.history_SL[slates]
    history = history if whole_history else history[:, first_used(history) :]
    length = history.shape[1]
    mask = history >= 0
    distinct, local = np.unique(
        np.concatenate([history[mask], shown.item[rows]]), return_inverse=True
    )
    history_BL = np.zeros(history.shape, np.int64)
    history_BL[mask] = local[: mask.sum()]
    position = np.clip(shown.position[rows], -1, NUM_POSITIONS - 2)
    return RankingBatch(
        item_inputs=gather_items(items, distinct),
        item_BP=padded(local[mask.sum() :]),
        history_BL=torch.from_numpy(history_BL),
        inputs={
            "item_dense": padded(examples.item_dense_RF[rows]),
            "pair_dense": padded(examples.pair_dense_RF[rows]),
            "surface": torch.from_numpy(shown.surface[start]),
            "history_actions": torch.from_numpy(
                examples.actions_SL[slates][:, -length:].astype(np.int64)
            ),
            "history_ages_s": torch.from_numpy(examples.ages_SL[slates][:, -length:]),
            "history_mask": torch.from_numpy(mask.astype(np.float32)),
            "profile": torch.from_numpy(examples.profile_S3[slates]),
            "interests": torch.from_numpy(examples.interests_SI[slates]),
            "dense": torch.from_numpy(examples.user_dense_SF[slates]),
        },
        position_BP=padded(np.where(position < 0, NUM_POSITIONS - 1, position)),
        label_BPH=padded(shown.label_RH[rows], np.nan),
        rows=rows,
        place=place,
    )
