"""Exports the ranker to ONNX: its item tower, and the scorer of one request.

The item tower runs once an item, when a bundle is made; the scorer once a request, on the vectors
of its candidates and of the reader's history.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from feedrank_core.contracts.slates import HEADS
from feedrank_core.features.encoding import ITEM_INPUTS
from feedrank_core.models.ranker import Ranker
from torch import Tensor, nn

from feedrank_trainer.batching import ItemInputs
from feedrank_trainer.onnx_export import TOLERANCE, ParityError, export, on_one_thread, write_onnx
from feedrank_trainer.ranking.batching import assemble
from feedrank_trainer.ranking.examples import RankingExamples
from feedrank_trainer.ranking.training import scorer_inputs

ITEM_FILE, SCORER_FILE = "ranker_items.onnx", "ranker_scorer.onnx"
CANDIDATE_INPUTS = ("item_vectors", "item_dense", "pair_dense", "source")
SCORER_INPUTS = (
    *CANDIDATE_INPUTS, "surface", "history_vectors", "history_actions", "history_ages_s",
    "history_mask", "shown_vectors", "shown_sources", "shown_ages_s", "shown_mask", "profile",
    "interests", "dense",
)  # fmt: skip
OUTPUT = "logits"


def export_ranker(
    model: Ranker, folder: Path, examples: RankingExamples, items: ItemInputs
) -> None:
    """Write both files, checked on the slates of `examples`. Raises: ParityError."""
    model.eval()
    export(model.items, folder / ITEM_FILE, {name: items[name][:64] for name in ITEM_INPUTS})
    requests = [request(model, examples, items, slate) for slate in range(examples.num_slates)]
    path = folder / SCORER_FILE
    sample = dict(requests[0])
    # Twice over, since a single candidate would be taken for a constant.
    sample |= {name: torch.cat([sample[name]] * 2, dim=1) for name in CANDIDATE_INPUTS}
    places = torch.export.Dim("candidates", min=1, max=1 << 16)
    sample = {name: sample[name] for name in SCORER_INPUTS}
    dynamic = {name: {1: places} for name in CANDIDATE_INPUTS}
    write_onnx(model.scorer, path, sample, dynamic, output=OUTPUT)
    check_requests(model.scorer, path, requests)


@torch.no_grad()
def request(
    model: Ranker, examples: RankingExamples, items: ItemInputs, slate: int
) -> dict[str, Tensor]:
    """One slate as a request of its own, with a history of the full length."""
    batch = assemble(examples, np.array([slate]), items, whole_history=True)
    return scorer_inputs(model, batch)


@torch.no_grad()
def check_requests(scorer: nn.Module, path: Path, requests: list[dict[str, Tensor]]) -> None:
    """Raises: ParityError where torch and onnxruntime differ by more than TOLERANCE."""
    session = on_one_thread(path)
    for inputs in requests:
        theirs = session.run([OUTPUT], {name: v.numpy() for name, v in inputs.items()})[0]
        ours = scorer(**inputs).numpy()
        worst = float(np.abs(np.asarray(theirs) - ours).max())
        if not worst <= TOLERANCE or ours.shape[2] != len(HEADS):
            raise ParityError(f"{path.name} differs from torch by {worst:.2g}")
