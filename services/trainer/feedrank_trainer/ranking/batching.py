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

    Shapes: item_inputs (U, ...); item_BP (B, P), history_BL (B, L) and shown_BM (B, M) int64 into
    U; inputs, the scorer's by name without the vectors; position_BP int64; label_BPH float32, NaN
    where a head is not known and in places that hold nothing; rows (K,) and place (K,) int64,
    which impression stands where in the flattened (B * P).
    """

    item_inputs: dict[str, Tensor]
    item_BP: Tensor
    history_BL: Tensor
    shown_BM: Tensor
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


@dataclass(frozen=True)
class _Layout:
    """Where the impressions of some slates stand: `rows` of the examples at `place` of (B * P)."""

    rows: np.ndarray
    place: np.ndarray
    num_slates: int
    widest: int

    @classmethod
    def of(cls, examples: RankingExamples, slates: np.ndarray) -> _Layout:
        start, size = examples.start_S[slates], np.diff(examples.start_S)[slates]
        widest = int(size.max())
        of_slate = np.repeat(np.arange(len(slates)), size)
        column = np.arange(len(of_slate)) - np.repeat(np.cumsum(size) - size, size)
        return cls(np.repeat(start, size) + column, of_slate * widest + column, len(slates), widest)

    def padded(self, values_R: np.ndarray, fill: float = 0) -> Tensor:
        """Values of the rows by slate and column. Shapes: (R, ...) to (B, P, ...)."""
        shape = (self.num_slates, self.widest, *values_R.shape[1:])
        filled = np.full(shape, fill, values_R.dtype)
        filled.reshape(-1, *shape[2:])[self.place] = values_R
        return torch.from_numpy(filled)


def assemble(
    examples: RankingExamples,
    slates: np.ndarray,
    items: ItemInputs,
    *,
    whole_history: bool = False,
) -> RankingBatch:
    """The batch of some slates; histories as wide as their longest unless `whole_history`."""
    layout = _Layout.of(examples, slates)
    rows, impressions = layout.rows, examples.impressions
    history_BL, was_shown_BM = examples.history_SL[slates], examples.shown_SM[slates]
    if not whole_history:
        history_BL = history_BL[:, first_used(history_BL) :]
        was_shown_BM = was_shown_BM[:, first_used(was_shown_BM) :]
    distinct, (item_R, place_BL, place_BM) = _among_distinct(
        impressions.item[rows], history_BL, was_shown_BM
    )
    position_R = np.clip(impressions.position[rows], -1, NUM_POSITIONS - 2)
    of_readers = {
        "surface": impressions.surface[examples.start_S[slates]],
        "history_mask": (history_BL >= 0).astype(np.float32),
        "shown_mask": (was_shown_BM >= 0).astype(np.float32),
        **_of_readers(examples, slates, history_BL.shape[1], was_shown_BM.shape[1]),
    }
    return RankingBatch(
        item_inputs=gather_items(items, distinct),
        item_BP=layout.padded(item_R),
        history_BL=torch.from_numpy(place_BL),
        shown_BM=torch.from_numpy(place_BM),
        inputs={
            "item_dense": layout.padded(examples.item_dense_RF[rows]),
            "pair_dense": layout.padded(examples.pair_dense_RF[rows]),
            "source": layout.padded(impressions.source[rows] + 1),
            **{name: torch.from_numpy(values) for name, values in of_readers.items()},
        },
        position_BP=layout.padded(np.where(position_R < 0, NUM_POSITIONS - 1, position_R)),
        label_BPH=layout.padded(impressions.label_RH[rows], np.nan),
        rows=rows,
        place=layout.place,
    )


def _of_readers(
    examples: RankingExamples, slates: np.ndarray, num_actions: int, num_shown: int
) -> dict[str, np.ndarray]:
    """What the examples hold of each slate's reader, the newest places of lists alone."""
    return {
        "history_actions": examples.actions_SL[slates, -num_actions:].astype(np.int64),
        "history_ages_s": examples.ages_SL[slates, -num_actions:],
        "shown_sources": examples.shown_sources_SM[slates, -num_shown:].astype(np.int64),
        "shown_ages_s": examples.shown_ages_SM[slates, -num_shown:],
        "profile": examples.profile_S3[slates],
        "interests": examples.interests_SI[slates],
        "dense": examples.user_dense_SF[slates],
    }


def _among_distinct(*listed: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """The distinct items of all lists, and every item's place among them, 0 for none."""
    is_there = [items >= 0 for items in listed]
    needed = [items[there] for items, there in zip(listed, is_there, strict=True)]
    distinct, place = np.unique(np.concatenate(needed), return_inverse=True)
    parts = np.split(place, np.cumsum([len(items) for items in needed])[:-1])
    found = []
    for there, part in zip(is_there, parts, strict=True):
        found.append(np.zeros(there.shape, np.int64))
        found[-1][there] = part
    return distinct, found
