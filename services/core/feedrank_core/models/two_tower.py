"""Two towers and their loss: sampled softmax, corrected for how negatives were drawn.

B examples, U distinct items of a batch, C = B + M columns (in-batch and uniform negatives).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from feedrank_core.features.encoding import FeatureSchema
from feedrank_core.models.item_tower import ItemTower
from feedrank_core.models.user_tower import UserTower

MASKED_LOGIT = -1e9


@dataclass(frozen=True)
class Batch:
    """One step's work, on items by their place among the batch's distinct items.

    Shapes: item_inputs (U, ...); user_inputs (B, ...) without `history_vectors`; history (B, L)
    int64 into U; positive (B,) int64 into U; negative (M,) int64 into U; log_q (U,) float32, the
    log of the expected number of columns that hold the item; user (B,) int64 tells readers apart.
    """

    item_inputs: dict[str, Tensor]
    user_inputs: dict[str, Tensor]
    history: Tensor
    positive: Tensor
    negative: Tensor
    log_q: Tensor
    user: Tensor


class TwoTower(nn.Module):
    """Item and user tower joined by a dot product."""

    def __init__(self, schema: FeatureSchema, *, dropout: float, id_dropout: float) -> None:
        super().__init__()
        self.items = ItemTower(schema, id_dropout=id_dropout)
        self.users = UserTower(schema, dropout=dropout)
        self.log_scale = nn.Parameter(torch.zeros(()))

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Scaled scores and what may not count as a negative. Shapes: (B, C), (B, C) bool."""
        item_UD = self.items(**batch.item_inputs)
        mask_BL1 = batch.user_inputs["history_mask"].unsqueeze(2)
        # index_select of the flat ids: its gradient is one index_add, deterministic on a CPU.
        shape = (*batch.history.shape, item_UD.shape[1])
        history_BLD = item_UD.index_select(0, batch.history.flatten()).view(shape) * mask_BL1
        user_BD = self.users(history_vectors=history_BLD, **batch.user_inputs)
        column_C = torch.cat([batch.positive, batch.negative])
        score_BC = self.log_scale.exp() * user_BD @ item_UD.index_select(0, column_C).T
        return score_BC, known_positives(batch, column_C, len(item_UD))


def known_positives(batch: Batch, column_C: Tensor, num_items: int) -> Tensor:
    """True where a column is no negative of the row, nor its own positive.

    That is: the positive met again (an accidental hit), an item of the reader's history, and
    another positive of the same reader in this batch. Shapes: (B, C) bool.
    """
    num_rows = len(batch.positive)
    own_BU = torch.zeros(num_rows, num_items, dtype=torch.bool)
    rows_BL = torch.arange(num_rows).unsqueeze(1).expand_as(batch.history)
    present_BL = batch.user_inputs["history_mask"] > 0
    own_BU[rows_BL[present_BL], batch.history[present_BL]] = True
    same_reader_BB = batch.user.unsqueeze(1) == batch.user.unsqueeze(0)
    row_P, other_P = same_reader_BB.nonzero(as_tuple=True)
    own_BU[row_P, batch.positive[other_P]] = True
    hidden_BC = own_BU[:, column_C]
    hidden_BC[torch.arange(num_rows), torch.arange(num_rows)] = False
    return hidden_BC


def sampled_softmax(score_BC: Tensor, hidden_BC: Tensor, log_q_C: Tensor) -> Tensor:
    """Cross-entropy of each row's own column, each column's score less log q.

    Source: Yi et al. 2019, Sampling-Bias-Corrected Neural Modeling for Large Corpus Item
    Recommendations.
    """
    logit_BC = (score_BC - log_q_C).masked_fill(hidden_BC, MASKED_LOGIT)
    return nn.functional.cross_entropy(logit_BC, torch.arange(len(logit_BC)))
