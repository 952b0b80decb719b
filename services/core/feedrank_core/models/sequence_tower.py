"""The user tower for actions whose order tells what comes next: a causal transformer.

What an action has read is all that was known when it happened, so that training asks at every
place of a history at once and serving reads the newest place. B histories, Q places that are
asked, L actions, D = EMBEDDING_DIM.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from feedrank_core.contracts.bundle import EMBEDDING_DIM
from feedrank_core.features.encoding import FeatureSchema
from feedrank_core.models.item_tower import as_reader, table
from feedrank_core.models.user_tower import (
    MASKED,
    NUM_AGE_BUCKETS,
    NUM_PLACES,
    RECENCY,
    START_OF_MIX,
    Asked,
    Profile,
    age_buckets,
)

NUM_BLOCKS = 2
START_OF_SHARED = 0.1
"""Of its usual start: what says the same of nearly all readers must not outshout what each read."""


class Block(nn.Module):
    """Attention and a feed-forward layer, each normalised before and added after (pre-norm).

    How much an action reads of an earlier one also depends on how many came between, and how much
    time. Source: HSTU (Zhai et al. 2024) for the two biases.
    """

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.before_attention = nn.LayerNorm(EMBEDDING_DIM)
        self.projections = nn.Linear(EMBEDDING_DIM, 3 * EMBEDDING_DIM)
        self.joined = nn.Linear(EMBEDDING_DIM, EMBEDDING_DIM)
        self.of_distance = nn.Parameter(torch.zeros(NUM_PLACES))
        self.of_time = nn.Parameter(torch.zeros(NUM_AGE_BUCKETS))
        self.forward_layers = nn.Sequential(
            nn.LayerNorm(EMBEDDING_DIM),
            nn.Linear(EMBEDDING_DIM, EMBEDDING_DIM),
            nn.GELU(),
            nn.Linear(EMBEDDING_DIM, EMBEDDING_DIM),
            nn.Dropout(dropout),
        )
        self.dropout = nn.Dropout(dropout)

    @torch.no_grad()
    def start(self, *, as_mean: bool) -> None:
        """Begin as next to nothing; `as_mean`: as the mean of what came before, newest first."""
        self.of_distance.copy_(-RECENCY * torch.log1p(torch.arange(NUM_PLACES)))
        last = cast(nn.Linear, self.forward_layers[3])
        for layer in (self.joined, last):
            layer.weight.mul_(START_OF_MIX)
            nn.init.zeros_(layer.bias)
        if as_mean:
            nn.init.eye_(self.projections.weight[2 * EMBEDDING_DIM :])
            nn.init.zeros_(self.projections.bias)
            # What is read was normalised to a length of sqrt(D), an event is about 1 long.
            nn.init.eye_(self.joined.weight).mul_(EMBEDDING_DIM**-0.5)

    def forward(self, event_BLD: Tensor, between: Between) -> Tensor:
        """Shapes: (B, L, D)."""
        projected = self.projections(self.before_attention(event_BLD))
        query_BLD, key_BLD, value_BLD = projected.chunk(3, dim=2)
        score_BLL = query_BLD @ key_BLD.transpose(1, 2) * EMBEDDING_DIM**-0.5
        score_BLL = score_BLL + self.of_distance[between.distance_LL] + between.bias_BLL
        score_BLL = score_BLL + self.of_time[between.time_BLL]
        read_BLD = torch.softmax(score_BLL, dim=2) @ value_BLD
        event_BLD = event_BLD + self.dropout(self.joined(read_BLD))
        return event_BLD + self.forward_layers(event_BLD)


def places(history_mask: Tensor) -> Tensor:
    """Places from the newest, 1, so that each means the same whatever came before it; 0 for none.

    Shapes: (B, L) int64.
    """
    # Whole numbers: an accelerator adds up others in an order of its own.
    is_there_BL = history_mask.long()
    counted_BL = is_there_BL.flip(1).cumsum(1).flip(1) * is_there_BL
    return counted_BL.clamp(max=NUM_PLACES - 1)


@dataclass(frozen=True)
class Between:
    """What lies between two actions of a history.

    Shapes: distance_LL (L, L) int64, time_BLL (B, L, L) int64 buckets, bias_BLL (B, L, L) float32:
    0 where the second may be read by the first, else MASKED.
    """

    distance_LL: Tensor
    time_BLL: Tensor
    bias_BLL: Tensor


def between(history_ages_s: Tensor, history_mask: Tensor) -> Between:
    """The relations of all actions of each history."""
    step_L = torch.arange(history_mask.shape[1], device=history_mask.device)
    distance_LL = step_L.unsqueeze(1) - step_L.unsqueeze(0)
    time_BLL = age_buckets(
        (history_ages_s.unsqueeze(1) - history_ages_s.unsqueeze(2)).clamp(min=0.0)
    )
    is_readable_BLL = history_mask.unsqueeze(1) * (distance_LL >= 0).to(history_mask.dtype)
    return Between(
        distance_LL.clamp(min=0, max=NUM_PLACES - 1), time_BLL, (1 - is_readable_BLL) * MASKED
    )


class SequenceTower(nn.Module):
    """Every action reads those before it; what the newest one has read is the reader.

    It starts as the newest action and the mean of those before it, an item-to-item recommender, and
    learns from there: so it ranks after a fraction of the steps.
    Source: SASRec (Kang and McAuley 2018), with relations instead of places, and actions.
    """

    def __init__(
        self,
        schema: FeatureSchema,
        *,
        dropout: float = 0.1,
        cosine: bool = False,
        num_blocks: int = NUM_BLOCKS,
    ) -> None:
        super().__init__()
        self.cosine = cosine
        self.kinds = table(len(schema.actions) + 2, EMBEDDING_DIM)
        self.waits = table(NUM_AGE_BUCKETS, EMBEDDING_DIM, padding=None)
        self.profile = Profile(schema)
        self.of_profile = nn.Linear(self.profile.width, EMBEDDING_DIM)
        self.blocks = nn.ModuleList(Block(dropout) for _ in range(num_blocks))
        self.norm = nn.LayerNorm(EMBEDDING_DIM)
        self.dropout = nn.Dropout(dropout)
        with torch.no_grad():
            for shared in (self.kinds.weight, self.waits.weight, *self.of_profile.parameters()):
                shared.mul_(START_OF_SHARED)
        for number, block in enumerate(self.blocks):
            cast(Block, block).start(as_mean=number == 0)

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
        """The vectors now. Shapes: (B, D)."""
        read_BLD = self.read(history_vectors, history_actions, history_ages_s, history_mask)
        newest_BL = (places(history_mask) == 1).to(read_BLD.dtype)
        newest_BD = (newest_BL.unsqueeze(1) @ read_BLD).squeeze(1)
        wait_s_B = (newest_BL * history_ages_s).sum(dim=1)
        return self.finish(newest_BD, wait_s_B, newest_BL.sum(dim=1), profile, interests, dense)

    def at(
        self,
        asked: Asked,
        history_vectors: Tensor,
        history_actions: Tensor,
        history_ages_s: Tensor,
        history_mask: Tensor,
        profile: Tensor,
        interests: Tensor,
        dense: Tensor,
    ) -> Tensor:
        """The vectors at the places that are asked; profiles are of that time.

        Shapes: histories (B, ...), profile, interests and dense (Q, ...), to (Q, D).
        """
        read_BLD = self.read(history_vectors, history_actions, history_ages_s, history_mask)
        has_history_Q = (asked.place >= 0).to(read_BLD.dtype)
        flat_Q = asked.history * history_mask.shape[1] + asked.place.clamp(min=0)
        read_QD = read_BLD.flatten(0, 1).index_select(0, flat_Q) * has_history_Q.unsqueeze(1)
        wait_s_Q = history_ages_s.flatten().index_select(0, flat_Q) - asked.age_s
        return self.finish(
            read_QD, wait_s_Q * has_history_Q, has_history_Q, profile, interests, dense
        )

    def read(
        self,
        history_vectors: Tensor,
        history_actions: Tensor,
        history_ages_s: Tensor,
        history_mask: Tensor,
    ) -> Tensor:
        """What each action has read of those before it. Shapes: (B, L, D)."""
        event_BLD = self.dropout(history_vectors + self.kinds(history_actions))
        relations = between(history_ages_s, history_mask)
        for block in self.blocks:
            event_BLD = block(event_BLD, relations)
        return event_BLD

    def finish(
        self,
        read_QD: Tensor,
        wait_s_Q: Tensor,
        has_history_Q: Tensor,
        profile: Tensor,
        interests: Tensor,
        dense: Tensor,
    ) -> Tensor:
        """What was read, how long ago the newest action was, and the profile. Shapes: (Q, D)."""
        waited_QD = self.waits(age_buckets(wait_s_Q)) * has_history_Q.unsqueeze(1)
        profile_QD = self.of_profile(self.profile(profile, interests, dense))
        return as_reader(self.norm(read_QD + waited_QD + profile_QD), cosine=self.cosine)
