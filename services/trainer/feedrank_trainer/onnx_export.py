"""Exports both towers to ONNX and holds the files equal to torch before anyone trusts them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from feedrank_core.contracts.bundle import EMBEDDING_DIM, Part
from feedrank_core.features.encoding import HISTORY_LENGTH, ITEM_INPUTS, USER_INPUTS
from feedrank_core.models.two_tower import TwoTower
from torch import nn

from feedrank_trainer.examples import read_shard

TOLERANCE = 1e-4
"""Largest difference between torch and onnxruntime; float32 sums in another order."""

OUTPUT = "vector"
PARITY_ROWS = 64


class ParityError(RuntimeError):
    """An exported encoder does not answer as the tower it came from."""


def export_encoders(
    model: TwoTower,
    bundle: Path,
    items: dict[str, np.ndarray],
    users: dict[str, np.ndarray],
) -> None:
    """Write both encoders with a dynamic batch. Raises: ParityError."""
    export(model.items, bundle / Part.ITEM_ENCODER, {n: items[n] for n in ITEM_INPUTS})
    export(model.users, bundle / Part.USER_ENCODER, users)


def user_inputs_of(shard: Path) -> dict[str, np.ndarray]:
    """What the user encoder reads for the first examples of a shard, with vectors by chance."""
    piece = next(read_shard(shard, rows=PARITY_ROWS))
    size = (len(piece["user"]), HISTORY_LENGTH, EMBEDDING_DIM)
    vectors = np.random.default_rng(0).normal(size=size).astype(np.float32)
    mask = (piece["history"] >= 0).astype(np.float32)
    found = piece | {"history_vectors": vectors, "history_mask": mask}
    # Of a file's own memory torch would warn: nothing may write there.
    return {name: found[name].copy() for name in USER_INPUTS}


def export(tower: nn.Module, path: Path, inputs: dict[str, np.ndarray]) -> None:
    """Write one tower and check it on a batch of another size."""
    tower.eval()
    tensors = {name: torch.from_numpy(np.ascontiguousarray(v)) for name, v in inputs.items()}
    sample = {name: at_least_two(tensor) for name, tensor in tensors.items()}
    batch = torch.export.Dim("batch", min=1, max=1 << 24)
    write_onnx(tower, path, sample, {name: {0: batch} for name in sample}, output=OUTPUT)
    check_parity(tower, path, tensors)


def write_onnx(
    module: nn.Module,
    path: Path,
    sample: dict[str, torch.Tensor],
    dynamic: dict[str, dict[int, Any]],
    *,
    output: str,
) -> None:
    """Write a module whose inputs are those of `sample`, by name and in the order of its arguments.

    `dynamic` names the axes of inputs whose length may vary.
    """
    with warnings.catch_warnings():
        # The exporter warns of its own internals (deprecated onnxscript calls): not ours to mend.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            tuple(sample.values()),
            str(path),
            input_names=list(sample),
            output_names=[output],
            dynamic_shapes=tuple(dynamic.get(name, {}) for name in sample),
            dynamo=True,
            external_data=False,
            verbose=False,
        )


def at_least_two(values: torch.Tensor) -> torch.Tensor:
    """A batch of 2: a batch of 1 would be taken for a constant."""
    return torch.cat([values[:1], values[-1:]])


@torch.no_grad()
def check_parity(tower: nn.Module, path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Raises: ParityError where torch and onnxruntime differ by more than TOLERANCE."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for rows in (1, len(next(iter(tensors.values())))):
        part = {name: values[:rows] for name, values in tensors.items()}
        (found,) = session.run([OUTPUT], {name: v.numpy() for name, v in part.items()})
        worst = float(np.abs(np.asarray(found) - tower(**part).numpy()).max())
        if not worst <= TOLERANCE:
            raise ParityError(f"{path.name} differs from torch by {worst:.2g} on {rows} rows")


def on_one_thread(path: Path) -> onnxruntime.InferenceSession:
    """A session on one thread: a server has as many requests as cores."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
