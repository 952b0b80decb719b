"""Vectors of the catalogue and of readers, a chunk at a time."""

from __future__ import annotations

import math

import numpy as np
import torch
from feedrank_core.models.two_tower import TwoTower
from torch import Tensor, nn

from feedrank_trainer.batching import USER_FIELDS, ItemInputs, gather_items, shortened
from feedrank_trainer.examples import Examples, select


@torch.no_grad()
def item_vectors(model: TwoTower, items: ItemInputs, *, chunk: int = 8192) -> np.ndarray:
    """Vectors of the whole catalogue. Shapes: (N, D) float32."""
    rows = np.arange(len(items["id_buckets"]))
    parts = np.array_split(rows, max(1, math.ceil(len(rows) / chunk)))
    return np.concatenate([_vectors(model, model.items, gather_items(items, p)) for p in parts])


def _vectors(model: TwoTower, tower: nn.Module, inputs: dict[str, Tensor]) -> np.ndarray:
    return tower(**{name: value.to(model.device) for name, value in inputs.items()}).cpu().numpy()


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
        found.append(_vectors(model, model.users, inputs))
    return np.concatenate(found)
