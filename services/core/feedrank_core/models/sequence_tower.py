"""The user tower for actions whose order tells what comes next: a transformer read at the newest.

B readers, L actions, D = EMBEDDING_DIM.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from feedrank_core.contracts.bundle import EMBEDDING_DIM
from feedrank_core.features.encoding import FeatureSchema
from feedrank_core.models.item_tower import finished
from feedrank_core.models.user_tower import MASKED, Actions, Profile, places

NUM_BLOCKS = 2


class Block(nn.Module):
    """Attention and a feed-forward layer, each normalised before and added after (pre-norm)."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.before_attention = nn.LayerNorm(EMBEDDING_DIM)
        self.projections = nn.Linear(EMBEDDING_DIM, 3 * EMBEDDING_DIM)
        self.joined = nn.Linear(EMBEDDING_DIM, EMBEDDING_DIM)
        self.forward_layers = nn.Sequential(
            nn.LayerNorm(EMBEDDING_DIM),
            nn.Linear(EMBEDDING_DIM, EMBEDDING_DIM),
            nn.GELU(),
            nn.Linear(EMBEDDING_DIM, EMBEDDING_DIM),
            nn.Dropout(dropout),
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, event_BLD: Tensor, bias_B1L: Tensor) -> Tensor:
        """Shapes: (B, L, D)."""
        projected = self.projections(self.before_attention(event_BLD))
        query_BLD, key_BLD, value_BLD = projected.chunk(3, dim=2)
        score_BLL = query_BLD @ key_BLD.transpose(1, 2) * EMBEDDING_DIM**-0.5 + bias_B1L
        read_BLD = torch.softmax(score_BLL, dim=2) @ value_BLD
        event_BLD = event_BLD + self.dropout(self.joined(read_BLD))
        return event_BLD + self.forward_layers(event_BLD)


class SequenceTower(nn.Module):
    """Every action reads every other; what the newest one has read is the reader.

    Source: SASRec (Kang and McAuley 2018), with places counted from the newest, ages and actions.
    """

    def __init__(
        self, schema: FeatureSchema, *, dropout: float = 0.1, cosine: bool = False
    ) -> None:
        super().__init__()
        self.cosine = cosine
        self.actions = Actions(schema)
        self.profile = Profile(schema)
        self.of_profile = nn.Linear(self.profile.width, EMBEDDING_DIM)
        self.blocks = nn.ModuleList(Block(dropout) for _ in range(NUM_BLOCKS))
        self.norm = nn.LayerNorm(EMBEDDING_DIM)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        history_vectors: Tensor,
        history_actions: Tensor,
        history_ages_s: Tensor,
        history_mask: Tensor,
        profile: Tensor,
        interests: Tensor,
        dense: Tensor,
    ) -> Tensor:
        """The vectors. Shapes: (B, D)."""
        place_BL = places(history_mask)
        event_BLD = self.dropout(
            self.actions(history_vectors, history_actions, history_ages_s, place_BL)
        )
        bias_B1L = (1 - history_mask.unsqueeze(1)) * MASKED
        for block in self.blocks:
            event_BLD = block(event_BLD, bias_B1L)
        newest_B1L = (place_BL == 1).to(event_BLD.dtype).unsqueeze(1)
        newest_BD = (newest_B1L @ event_BLD).squeeze(1)
        profile_BD = self.of_profile(self.profile(profile, interests, dense))
        return finished(self.norm(newest_BD + profile_BD), cosine=self.cosine)
