"""Two towers and their loss: sampled softmax, corrected for how negatives were drawn.

B histories, Q queries made of them, P positives of theirs (one or more each), U distinct items of a
batch, C columns: M uniform negatives, and the P positives before them where they are each other's
negatives. A history makes one query, now, unless it is asked at several places.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from feedrank_core.features.encoding import FeatureSchema
from feedrank_core.models.bag_tower import BagTower
from feedrank_core.models.item_tower import ItemTower, history_vectors
from feedrank_core.models.sequence_tower import NUM_BLOCKS, SequenceTower
from feedrank_core.models.user_tower import Asked, UserTower

MASKED_LOGIT = -1e9


@dataclass(frozen=True)
class Batch:
    """One step's work, on items by their place among the batch's distinct items.

    Shapes: item_inputs (U, ...); user_inputs without `history_vectors`, (B, ...) for histories and
    (Q, ...) for profiles; history (B, L) int64 into U; positive (P,) int64 into U; row (P,) int64
    into Q, whose positive it is; negative (M,) int64 into U; log_q (U,) float32, the log of the
    expected number of columns that hold the item; user (B,) int64 tells readers apart. `in_batch`:
    the positives are columns too. `asked` says which places are asked; None asks each history now.
    """

    item_inputs: dict[str, Tensor]
    user_inputs: dict[str, Tensor]
    history: Tensor
    positive: Tensor
    row: Tensor
    negative: Tensor
    log_q: Tensor
    user: Tensor
    in_batch: bool = True
    asked: Asked | None = None

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device."""

        def moved(value: Any) -> Any:
            if isinstance(value, dict):
                return {name: one.to(device) for name, one in value.items()}
            return value.to(device) if isinstance(value, Tensor | Asked) else value

        return Batch(**{name: moved(value) for name, value in vars(self).items()})

    def history_of(self, row: Tensor) -> Tensor:
        """The histories of some queries. Shapes: any, int64 into Q, to the same into B."""
        return row if self.asked is None else self.asked.history[row]


USER_TOWERS = {"attention": UserTower, "bag": BagTower, "sequence": SequenceTower}
"""How a history becomes a vector, by the name that a configuration gives it."""


class TwoTower(nn.Module):
    """Item and user tower joined by a dot product.

    With a temperature scores are cosines over it; without, 0, the scale of the dot products is
    learned. What everybody likes is added to either (`as_item`).
    """

    def __init__(
        self,
        schema: FeatureSchema,
        *,
        dropout: float,
        id_dropout: float,
        history: str = "attention",
        temperature: float = 0.0,
        kin: bool = False,
        num_blocks: int = NUM_BLOCKS,
    ) -> None:
        super().__init__()
        cosine = temperature > 0
        self.items = ItemTower(schema, id_dropout=id_dropout, cosine=cosine, kin=kin)
        blocks = {"num_blocks": num_blocks} if history == "sequence" else {}
        self.users = USER_TOWERS[history](schema, dropout=dropout, cosine=cosine, **blocks)
        scale = torch.tensor(-math.log(temperature) if cosine else 0.0)
        self.log_scale = nn.Parameter(scale, requires_grad=not cosine)

    @property
    def device(self) -> torch.device:
        """Where the weights are, and the batches must be."""
        return self.log_scale.device

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Scores of the positives, of all columns less log q, and which are no negatives.

        Where the positives are columns too, theirs are corrected alike; where they are not, a
        positive is certain to be there and is not corrected.
        Shapes: (P,), (Q, C), (Q, C) bool.
        """
        item_UD = self.items(**batch.item_inputs)
        mask_BL = batch.user_inputs["history_mask"]
        history_BLD = history_vectors(item_UD, batch.history, mask_BL)
        inputs = {"history_vectors": history_BLD, **batch.user_inputs}
        asked = batch.asked
        user_QD = self.users(**inputs) if asked is None else self.users.at(asked, **inputs)
        user_QD = self.log_scale.exp() * user_QD
        positive_PD = item_UD.index_select(0, batch.positive)
        own_P = (user_QD.index_select(0, batch.row) * positive_PD).sum(dim=1)
        column_C = batch.negative
        if batch.in_batch:
            own_P = own_P - batch.log_q[batch.positive]
            column_C = torch.cat([batch.positive, batch.negative])
        score_QC = user_QD @ item_UD.index_select(0, column_C).T - batch.log_q[column_C]
        known_BC = known_positives(batch, column_C, len(item_UD))
        return own_P, score_QC, known_BC if asked is None else known_BC[asked.history]


def known_positives(batch: Batch, column_C: Tensor, num_items: int) -> Tensor:
    """True where a column is no negative of the history.

    That is: a positive of the same reader in this batch, wherever it is met, and an item of the
    history. Shapes: (B, C) bool.
    """
    num_rows, device = len(batch.history), batch.history.device
    own_BU = torch.zeros(num_rows, num_items, dtype=torch.bool, device=device)
    rows_BL = torch.arange(num_rows, device=device).unsqueeze(1).expand_as(batch.history)
    present_BL = batch.user_inputs["history_mask"] > 0
    own_BU[rows_BL[present_BL], batch.history[present_BL]] = True
    # By reader: pairs of rows would be B x P of them.
    _, reader_B = batch.user.unique(return_inverse=True)
    positive_BU = torch.zeros_like(own_BU)
    positive_BU[reader_B[batch.history_of(batch.row)], batch.positive] = True
    own_BU |= positive_BU.index_select(0, reader_B)
    return own_BU.index_select(1, column_C)


def sampled_softmax(own_P: Tensor, score_QC: Tensor, hidden_QC: Tensor, row_P: Tensor) -> Tensor:
    """Cross-entropy of each positive among its row's negatives; those of one row do not compete.

    Source: Yi et al. 2019, Sampling-Bias-Corrected Neural Modeling for Large Corpus Item
    Recommendations, for the correction by log q.
    """
    others_Q = score_QC.masked_fill(hidden_QC, MASKED_LOGIT).logsumexp(dim=1)
    loss_P = nn.functional.softplus(others_Q.index_select(0, row_P) - own_P)
    return mean_of_rows(loss_P, row_P)


def binary_cross_entropy(
    own_P: Tensor, score_QC: Tensor, hidden_QC: Tensor, row_P: Tensor
) -> Tensor:
    """Each positive told from its row's negatives one by one, which weigh as much as it together.

    No preset learns by it: it is what the softmax is measured against.
    """
    shown_QC = 1 - hidden_QC.to(score_QC.dtype)
    others_QC = nn.functional.softplus(score_QC) * shown_QC
    others_Q = others_QC.sum(dim=1) / shown_QC.sum(dim=1).clamp(min=1.0)
    loss_P = nn.functional.softplus(-own_P) + others_Q.index_select(0, row_P)
    return mean_of_rows(loss_P, row_P)


def mean_of_rows(loss_P: Tensor, row_P: Tensor) -> Tensor:
    """The mean loss, where the n positives of a row weigh sqrt(n) together.

    Readers with much to say would else drown the others.
    """
    weight_P = torch.bincount(row_P).rsqrt().index_select(0, row_P)
    return (loss_P * weight_P).sum() / weight_P.sum()


LOSSES = {"softmax": sampled_softmax, "binary": binary_cross_entropy}
"""By the name that a configuration gives it."""
