"""The user tower: a reader's last actions and profile as one vector; no table of user ids.

B histories, Q places that are asked, K of them at most of one history, L actions, H queries,
D = EMBEDDING_DIM, F dense features.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from feedrank_core.contracts.bundle import EMBEDDING_DIM
from feedrank_core.features.encoding import FeatureSchema
from feedrank_core.models.item_tower import FIELD_DIM, HIDDEN_DIM, as_reader, mean_of_bag, table

NUM_QUERIES = 4
NUM_AGE_BUCKETS = 32
AGE_BUCKETS_PER_E_FOLD = 2.0
"""Ages from a second to a year in steps of a factor e^(1/2): log(3e7) * 2 is 34."""
NUM_PLACES = 64
MASKED = -1e4
RECENCY = 0.5
"""An action weighs as its place, counted from the newest, to the power of minus this; learned."""
START_OF_MIX = 0.1
"""What is not learned yet adds so little of its usual start to the mean of the history."""


class Profile(nn.Module):
    """What a reader says of themselves and the counters, side by side. `width` is how wide."""

    def __init__(self, schema: FeatureSchema) -> None:
        super().__init__()
        self.countries = table(len(schema.countries) + 2, FIELD_DIM)
        self.age_bands = table(len(schema.age_bands) + 2, FIELD_DIM)
        self.platforms = table(len(schema.platforms) + 2, FIELD_DIM)
        self.interests = table(schema.num_tag_buckets, FIELD_DIM)
        num_dense = max(1, len(schema.user_dense))
        self.dense_norm = nn.LayerNorm(num_dense) if num_dense > 1 else nn.Identity()
        self.width = 4 * FIELD_DIM + num_dense

    def forward(self, profile: Tensor, interests: Tensor, dense: Tensor) -> Tensor:
        """Shapes: (B, width)."""
        return torch.cat(
            [
                self.countries(profile[:, 0]),
                self.age_bands(profile[:, 1]),
                self.platforms(profile[:, 2]),
                mean_of_bag(self.interests, interests),
                self.dense_norm(dense),
            ],
            dim=1,
        )


def age_buckets(age_s: Tensor) -> Tensor:
    """The bucket of each age. Shapes: any, int64."""
    return (torch.log1p(age_s) * AGE_BUCKETS_PER_E_FOLD).long().clamp(max=NUM_AGE_BUCKETS - 1)


@dataclass(frozen=True)
class Asked:
    """Which places of which histories are asked, and when.

    Shapes: history (Q,) int64 into B, ascending; place (Q,) int64 into L, -1 for a reader without a
    history; age_s (Q,) float32, how long before the history's own "now".
    """

    history: Tensor
    place: Tensor
    age_s: Tensor

    def to(self, device: torch.device) -> Asked:
        """The same on a device."""
        return Asked(self.history.to(device), self.place.to(device), self.age_s.to(device))


@dataclass(frozen=True)
class Seen:
    """What the K places that are asked of each history see of its actions.

    Shapes: is_there_BKL (B, K, L) float32; place_BKL int64 from the newest that is seen, 1; age_BKL
    int64 buckets.
    """

    is_there_BKL: Tensor
    place_BKL: Tensor
    age_BKL: Tensor

    @classmethod
    def of(
        cls, asked_BK: Tensor, age_s_BK: Tensor, history_ages_s: Tensor, history_mask: Tensor
    ) -> Seen:
        """Shapes: (B, K) each, (B, L) each."""
        step_L = torch.arange(history_mask.shape[1], device=history_mask.device)
        is_earlier_BKL = (step_L <= asked_BK.unsqueeze(2)).to(history_mask.dtype)
        is_there_BKL = is_earlier_BKL * history_mask.unsqueeze(1)
        # Whole numbers: an accelerator adds up others in an order of its own.
        since_BKL = is_there_BKL.long().flip(2).cumsum(2).flip(2)
        age_s_BKL = (history_ages_s.unsqueeze(1) - age_s_BK.unsqueeze(2)).clamp(min=0.0)
        return cls(
            is_there_BKL,
            since_BKL.clamp(min=1, max=NUM_PLACES - 1),
            age_buckets(age_s_BKL),
        )


class UserTower(nn.Module):
    """Queries made of the profile and of the last action read the history by attention.

    The mean of the history, newer actions first, reaches the output as it is: the tower starts as
    an item-to-item recommender and learns from there, so that few examples do for a good feed.
    An action is read by what it is; how long ago it was, and how many came since, only weigh it. So
    training reads a history once and asks it wherever a positive lies.
    """

    def __init__(
        self, schema: FeatureSchema, *, dropout: float = 0.1, cosine: bool = False
    ) -> None:
        super().__init__()
        self.cosine = cosine
        self.kinds = table(len(schema.actions) + 2, EMBEDDING_DIM)
        self.ages = table(NUM_AGE_BUCKETS, NUM_QUERIES, padding=None)
        self.places = table(NUM_PLACES, NUM_QUERIES, padding=None)
        self.profile = Profile(schema)
        width = self.profile.width
        self.norm = nn.LayerNorm(EMBEDDING_DIM)
        self.query = nn.Linear(width + EMBEDDING_DIM, NUM_QUERIES * EMBEDDING_DIM)
        self.keys = nn.Linear(EMBEDDING_DIM, EMBEDDING_DIM)
        self.values = nn.Linear(EMBEDDING_DIM, EMBEDDING_DIM)
        self.dropout = nn.Dropout(dropout)
        mixed = nn.Linear(HIDDEN_DIM, EMBEDDING_DIM)
        self.mix = nn.Sequential(
            nn.Linear(width + (NUM_QUERIES + 2) * EMBEDDING_DIM, HIDDEN_DIM),
            nn.GELU(),
            nn.Dropout(dropout),
            mixed,
        )
        self.residual = nn.Linear(EMBEDDING_DIM, EMBEDDING_DIM, bias=False)
        self.weights = table(len(schema.actions) + 2, 1, padding=None)
        self.decay = nn.Parameter(torch.tensor(RECENCY))
        with torch.no_grad():
            nn.init.eye_(self.residual.weight)
            mixed.weight.mul_(START_OF_MIX)
            nn.init.zeros_(mixed.bias)

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
        ago_s_B1 = torch.zeros_like(history_mask[:, :1])
        newest_B1 = torch.full_like(ago_s_B1, history_mask.shape[1] - 1)
        seen = Seen.of(newest_B1, ago_s_B1, history_ages_s, history_mask)
        profile_BKW = self.profile(profile, interests, dense).unsqueeze(1)
        event_BLD = self.norm(history_vectors + self.kinds(history_actions))
        return self.read(event_BLD, history_actions, seen, profile_BKW).squeeze(1)

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
        count_B = torch.bincount(asked.history, minlength=len(history_mask))
        first_B = count_B.cumsum(0) - count_B
        widest = int(count_B.max())
        column_Q = torch.arange(len(asked.history), device=history_mask.device)
        flat_Q = asked.history * widest + column_Q - first_B[asked.history]

        def by_history(value_Q: Tensor, fill: float = 0) -> Tensor:
            shape = (len(history_mask) * widest, *value_Q.shape[1:])
            filled = value_Q.new_full(shape, fill).index_copy(0, flat_Q, value_Q)
            return filled.view(len(history_mask), widest, *value_Q.shape[1:])

        seen = Seen.of(
            by_history(asked.place, -1), by_history(asked.age_s), history_ages_s, history_mask
        )
        profile_BKW = by_history(self.profile(profile, interests, dense))
        event_BLD = self.norm(history_vectors + self.kinds(history_actions))
        vector_BKD = self.read(event_BLD, history_actions, seen, profile_BKW)
        return vector_BKD.flatten(0, 1).index_select(0, flat_Q)

    def read(self, event_BLD: Tensor, action_BL: Tensor, seen: Seen, profile_BKW: Tensor) -> Tensor:
        """The vectors of every place that is asked. Shapes: (B, K, D)."""
        is_newest_BKL = (seen.place_BKL == 1).to(event_BLD.dtype) * seen.is_there_BKL
        newest_BKD = is_newest_BKL @ event_BLD
        mean_BKD = self.recent_mean(event_BLD, action_BL, seen)
        read_BKW = self.attend(event_BLD, seen, torch.cat([profile_BKW, newest_BKD], dim=2))
        mixed_BKD = self.mix(torch.cat([profile_BKW, read_BKW, newest_BKD, mean_BKD], dim=2))
        return as_reader(mixed_BKD + self.residual(mean_BKD), cosine=self.cosine)

    def recent_mean(self, event_BLD: Tensor, action_BL: Tensor, seen: Seen) -> Tensor:
        """The mean action, weighed by what was done and how many came since. Shapes: (B, K, D)."""
        of_kind_B1L = self.weights(action_BL).transpose(1, 2)
        log_place_BKL = torch.log(seen.place_BKL.to(event_BLD.dtype))
        weight_BKL = torch.exp(of_kind_B1L - self.decay * log_place_BKL) * seen.is_there_BKL
        return (weight_BKL @ event_BLD) / weight_BKL.sum(dim=2, keepdim=True).clamp(min=1e-6)

    def attend(self, event_BLD: Tensor, seen: Seen, query_BKW: Tensor) -> Tensor:
        """What each query reads of what is seen. Shapes: (B, K, H * D)."""
        num_places = query_BKW.shape[1]
        query_BRD = self.query(query_BKW).view(-1, num_places * NUM_QUERIES, EMBEDDING_DIM)
        score_BRL = query_BRD @ self.keys(event_BLD).transpose(1, 2) / math.sqrt(EMBEDDING_DIM)
        of_time_BKLH = self.ages(seen.age_BKL) + self.places(seen.place_BKL)
        hidden_BK1L = ((1 - seen.is_there_BKL) * MASKED).unsqueeze(2)
        score_BKHL = score_BRL.view(-1, num_places, NUM_QUERIES, event_BLD.shape[1])
        score_BKHL = score_BKHL + of_time_BKLH.transpose(2, 3) + hidden_BK1L
        # Where nothing is seen the softmax is uniform over what is hidden: the mask empties it.
        share_BKHL = torch.softmax(score_BKHL, dim=3) * seen.is_there_BKL.unsqueeze(2)
        read_BRD = share_BKHL.flatten(1, 2) @ self.values(self.dropout(event_BLD))
        return read_BRD.view(-1, num_places, NUM_QUERIES * EMBEDDING_DIM)
