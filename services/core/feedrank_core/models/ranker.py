"""The ranker: what an impression will lead to, for every head; candidates do not see each other.

B readers, P candidates each, L actions, D = EMBEDDING_DIM, H = len(HEADS), F dense features.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from feedrank_core.contracts.bundle import EMBEDDING_DIM
from feedrank_core.contracts.slates import HEADS, Source
from feedrank_core.features.encoding import FeatureSchema
from feedrank_core.models.item_tower import ItemTower, table
from feedrank_core.models.user_tower import MASKED, NUM_AGE_BUCKETS, UserTower, age_buckets

NUM_SURFACES = 8
SURFACE_DIM = 4
NUM_SOURCES = len(Source) + 1
"""The first for none."""
SOURCE_DIM = 8
CROSS_RANK = 32
NUM_CROSSES = 2
BOTTOM_DIMS = (128, 64)
TOWER_DIM = 16
NUM_READERS = 4
"""Attention heads with which a candidate reads the history."""
FEW_SHOWN = 10.0
"""Items shown at which their mean weighs half, to begin with; learned."""
ID_DROPOUT = 0.1
"""As `ItemTower` has it; its first choice, with no ablation yet."""
NUM_POSITIONS = 101
"""Positions 0 to 98 apart, all later ones together, and the last row for none."""


@dataclass(frozen=True)
class Widths:
    """How many dense features there are of each kind."""

    item: int
    pair: int
    user: int


class CrossLayer(nn.Module):
    """`x0 * (U V x + b) + x`: every layer multiplies features once more.

    Source: Wang et al. 2021 (DCN V2), the low-rank form.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.narrow = nn.Linear(width, CROSS_RANK, bias=False)
        self.wide = nn.Linear(CROSS_RANK, width)

    def forward(self, first_BPF: Tensor, crossed_BPF: Tensor) -> Tensor:
        """Shapes: (B, P, F)."""
        return first_BPF * self.wide(self.narrow(crossed_BPF)) + crossed_BPF


class ShownMean(nn.Module):
    """What a reader was shown lately, as one vector: it tells their taste where they did not act.

    Newer ones weigh more, as learned, and so do those of a source that knows the reader; few of
    them say little. The linear map takes off what all readers are shown.
    """

    def __init__(self) -> None:
        super().__init__()
        self.weights = table(NUM_AGE_BUCKETS, 1, padding=None)
        self.sources = table(NUM_SOURCES, 1, padding=None)
        self.few = nn.Parameter(torch.tensor(math.log(FEW_SHOWN)))
        self.out = nn.Linear(EMBEDDING_DIM, EMBEDDING_DIM)
        with torch.no_grad():
            nn.init.eye_(self.out.weight)
            nn.init.zeros_(self.out.bias)

    def forward(
        self, shown_BLD: Tensor, source_BL: Tensor, age_s_BL: Tensor, mask_BL: Tensor
    ) -> Tensor:
        """Shapes: (B, D)."""
        log_BL1 = self.weights(age_buckets(age_s_BL)) + self.sources(source_BL)
        weight_BL1 = torch.exp(log_BL1) * mask_BL.unsqueeze(2)
        total_B1 = weight_BL1.sum(dim=1) + self.few.exp()
        return self.out((shown_BLD * weight_BL1).sum(dim=1) / total_B1)


class CandidateAttention(nn.Module):
    """Each candidate reads the actions that are like it.

    Softmax says which of them are nearest, and a sum of sigmoids how many are near at all: a
    reader of one such item in fifty is another than a reader of forty.
    Source: Zhou et al. 2018 (Deep Interest Network) for attention from the candidate, without its
    normalisation for the sum.
    """

    def __init__(self, schema: FeatureSchema) -> None:
        super().__init__()
        self.kinds = table(len(schema.actions) + 2, EMBEDDING_DIM)
        self.ages = table(NUM_AGE_BUCKETS, EMBEDDING_DIM, padding=None)
        self.query = nn.Linear(EMBEDDING_DIM, EMBEDDING_DIM)
        self.key = nn.Linear(EMBEDDING_DIM, EMBEDDING_DIM)
        self.value = nn.Linear(EMBEDDING_DIM, EMBEDDING_DIM)
        self.nearness = nn.Parameter(torch.full((NUM_READERS,), -1.0))
        self.width = EMBEDDING_DIM + 2 * NUM_READERS

    def forward(
        self,
        item_BPD: Tensor,
        history_BLD: Tensor,
        action_BL: Tensor,
        age_s_BL: Tensor,
        mask_BL: Tensor,
    ) -> Tensor:
        """What was read, how much of it, and the nearest. Shapes: (B, P, width)."""
        event_BLD = history_BLD + self.kinds(action_BL) + self.ages(age_buckets(age_s_BL))
        query_BRPD, key_BRLD, value_BRLD = (
            _split(x) for x in (self.query(item_BPD), self.key(event_BLD), self.value(event_BLD))
        )
        score_BRPL = query_BRPD @ key_BRLD.transpose(2, 3) / math.sqrt(EMBEDDING_DIM / NUM_READERS)
        mask_B11L = mask_BL.unsqueeze(1).unsqueeze(1)
        hidden_BRPL = score_BRPL + (1 - mask_B11L) * MASKED
        # An empty history leaves a uniform softmax over padding: the mask on values empties it.
        read_BRPD = torch.softmax(hidden_BRPL, dim=3) @ (value_BRLD * mask_B11L.transpose(2, 3))
        near_BRPL = torch.sigmoid(score_BRPL + self.nearness.view(1, -1, 1, 1)) * mask_B11L
        count_BPR = torch.log1p(near_BRPL.sum(dim=3)).transpose(1, 2)
        share_BPR = (near_BRPL.sum(dim=3) / mask_B11L.sum(dim=3).clamp(min=1.0)).transpose(1, 2)
        read_BPD = read_BRPD.transpose(1, 2).flatten(2)
        return torch.cat([read_BPD, count_BPR, share_BPR], dim=2)


def _split(x_BND: Tensor) -> Tensor:
    """(B, N, D) to (B, R, N, D / R)."""
    shape = (x_BND.shape[0], x_BND.shape[1], NUM_READERS, EMBEDDING_DIM // NUM_READERS)
    return x_BND.view(shape).transpose(1, 2)


class HeadTowers(nn.Module):
    """A small tower of its own for every head, side by side in one product."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, len(HEADS) * TOWER_DIM)
        self.out = nn.Parameter(torch.randn(len(HEADS), TOWER_DIM) / math.sqrt(TOWER_DIM))
        self.bias = nn.Parameter(torch.zeros(len(HEADS)))

    def forward(self, shared_BPF: Tensor) -> Tensor:
        """Shapes: (B, P, H)."""
        hidden = torch.relu(self.hidden(shared_BPF))
        hidden_BPHT = hidden.view(*shared_BPF.shape[:2], len(HEADS), TOWER_DIM)
        return (hidden_BPHT * self.out).sum(dim=3) + self.bias


class Scorer(nn.Module):
    """Logits of all heads from vectors of items; what serving runs for each request.

    The last of HEADS, dwell, is no logit but the expected log1p of seconds.
    """

    dense_mean: Tensor
    dense_scale: Tensor

    def __init__(
        self, schema: FeatureSchema, widths: Widths, *, attention: bool, dropout: float
    ) -> None:
        super().__init__()
        self.users = UserTower(schema, dropout=dropout)
        self.shown = ShownMean()
        self.surfaces = table(NUM_SURFACES, SURFACE_DIM, padding=None)
        self.sources = table(NUM_SOURCES, SOURCE_DIM)
        self.attention = CandidateAttention(schema) if attention else None
        self.item_norm = nn.LayerNorm(EMBEDDING_DIM)
        dense = widths.item + widths.pair + widths.user
        self.register_buffer("dense_mean", torch.zeros(dense))
        self.register_buffer("dense_scale", torch.ones(dense))
        width = 3 * EMBEDDING_DIM + 1 + dense + SURFACE_DIM + SOURCE_DIM
        width += self.attention.width if self.attention else 0
        self.crosses = nn.ModuleList(CrossLayer(width) for _ in range(NUM_CROSSES))
        self.bottom = nn.Sequential(
            nn.Linear(width, BOTTOM_DIMS[0]),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(BOTTOM_DIMS[0], BOTTOM_DIMS[1]),
            nn.ReLU(),
        )
        self.towers = HeadTowers(BOTTOM_DIMS[1])

    def forward(
        self,
        item_vectors: Tensor,
        item_dense: Tensor,
        pair_dense: Tensor,
        source: Tensor,
        surface: Tensor,
        history_vectors: Tensor,
        history_actions: Tensor,
        history_ages_s: Tensor,
        history_mask: Tensor,
        shown_vectors: Tensor,
        shown_sources: Tensor,
        shown_ages_s: Tensor,
        shown_mask: Tensor,
        profile: Tensor,
        interests: Tensor,
        dense: Tensor,
    ) -> Tensor:
        """Shapes: candidates (B, P, ...), surface (B,), readers (B, ...), to (B, P, H)."""
        history = (history_vectors, history_actions, history_ages_s, history_mask)
        user_BD = self.users(*history, profile, interests, dense)
        user_BD = user_BD + self.shown(shown_vectors, shown_sources, shown_ages_s, shown_mask)
        num = item_vectors.shape[1]
        user_BPD = user_BD.unsqueeze(1).expand(-1, num, -1)
        both_BPD = user_BPD * item_vectors
        dense_BPF = torch.cat(
            [item_dense, pair_dense, dense.unsqueeze(1).expand(-1, num, -1)], dim=2
        )
        dense_BPF = (dense_BPF - self.dense_mean) * self.dense_scale
        parts = [
            user_BPD,
            self.item_norm(item_vectors),
            both_BPD,
            both_BPD.sum(dim=2, keepdim=True),
            dense_BPF,
            self.surfaces(surface).unsqueeze(1).expand(-1, num, -1),
            self.sources(source),
        ]
        if self.attention is not None:
            parts.append(self.attention(item_vectors, *history))
        first_BPF = torch.cat(parts, dim=2)
        crossed_BPF = first_BPF
        for cross in self.crosses:
            crossed_BPF = cross(first_BPF, crossed_BPF)
        return self.towers(self.bottom(crossed_BPF))


class Ranker(nn.Module):
    """Item tower and scorer, and in training what a position adds.

    The position's part is added to the logits and is not part of the scorer: serving leaves it
    out, and ranks as if all candidates stood at one place.
    Source: Zhao et al. 2019 (Recommending What Video to Watch Next), the shallow tower.
    """

    def __init__(
        self, schema: FeatureSchema, widths: Widths, *, attention: bool = True, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.items = ItemTower(schema, id_dropout=ID_DROPOUT)
        self.scorer = Scorer(schema, widths, attention=attention, dropout=dropout)
        self.of_position = nn.Embedding(NUM_POSITIONS, len(HEADS))
        nn.init.zeros_(self.of_position.weight)
