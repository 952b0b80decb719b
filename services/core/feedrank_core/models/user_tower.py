"""The user tower: a reader's last actions and profile as one vector; no table of user ids.

B readers, L = HISTORY_LENGTH actions, H queries, D = EMBEDDING_DIM, F dense features.
"""

from __future__ import annotations

import math

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


def places(history_mask: Tensor) -> Tensor:
    """Places from the newest, 1, so that each means the same whatever came before it; 0 for none.

    Shapes: (B, L) int64.
    """
    # Whole numbers: an accelerator adds up others in an order of its own.
    is_there_BL = history_mask.long()
    counted_BL = is_there_BL.flip(1).cumsum(1).flip(1) * is_there_BL
    return counted_BL.clamp(max=NUM_PLACES - 1)


class Actions(nn.Module):
    """Each action of a history: its item, what was done, how long ago, how many came since."""

    def __init__(self, schema: FeatureSchema) -> None:
        super().__init__()
        self.kinds = table(len(schema.actions) + 2, EMBEDDING_DIM)
        self.ages = table(NUM_AGE_BUCKETS, EMBEDDING_DIM, padding=None)
        self.places = table(NUM_PLACES, EMBEDDING_DIM, padding=None)

    def forward(
        self, item_BLD: Tensor, kind_BL: Tensor, age_s_BL: Tensor, place_BL: Tensor
    ) -> Tensor:
        """Shapes: (B, L, D)."""
        ages_BLD, places_BLD = self.ages(age_buckets(age_s_BL)), self.places(place_BL)
        return item_BLD + self.kinds(kind_BL) + ages_BLD + places_BLD


class UserTower(nn.Module):
    """Queries made of the profile and of the last action read the history by attention.

    The mean of the history, newer actions first, reaches the output as it is: the tower starts as
    an item-to-item recommender and learns from there, so that few examples do for a good feed.
    """

    def __init__(
        self, schema: FeatureSchema, *, dropout: float = 0.1, cosine: bool = False
    ) -> None:
        super().__init__()
        self.cosine = cosine
        self.actions = Actions(schema)
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
        """The vectors. Shapes: (B, D)."""
        profile_BW = self.profile(profile, interests, dense)
        mask_BL1 = history_mask.unsqueeze(2)
        place_BL = places(history_mask)
        event_BLD = self.norm(
            self.actions(history_vectors, history_actions, history_ages_s, place_BL)
        )
        newest_BL1 = (place_BL == 1).to(mask_BL1.dtype).unsqueeze(2) * mask_BL1
        newest_BD = (event_BLD * newest_BL1).sum(dim=1)
        mean_BD = self.recent_mean(event_BLD, history_actions, place_BL, mask_BL1)
        read_BW = self.attend(event_BLD, mask_BL1, torch.cat([profile_BW, newest_BD], dim=1))
        mixed_BD = self.mix(torch.cat([profile_BW, read_BW, newest_BD, mean_BD], dim=1))
        return as_reader(mixed_BD + self.residual(mean_BD), cosine=self.cosine)

    def recent_mean(
        self, event_BLD: Tensor, action_BL: Tensor, place_BL: Tensor, mask_BL1: Tensor
    ) -> Tensor:
        """The mean action, weighed by what was done and how many came since. Shapes: (B, D)."""
        place_BL1 = place_BL.clamp(min=1).to(mask_BL1.dtype).unsqueeze(2)
        weight_BL1 = torch.exp(self.weights(action_BL) - self.decay * torch.log(place_BL1))
        weight_BL1 = weight_BL1 * mask_BL1
        return (event_BLD * weight_BL1).sum(dim=1) / weight_BL1.sum(dim=1).clamp(min=1e-6)

    def attend(self, event_BLD: Tensor, mask_BL1: Tensor, query_BW: Tensor) -> Tensor:
        """What each query reads of the history. Shapes: (B, H * D)."""
        query_BHD = self.query(query_BW).view(-1, NUM_QUERIES, EMBEDDING_DIM)
        score_BHL = query_BHD @ self.keys(event_BLD).transpose(1, 2) / math.sqrt(EMBEDDING_DIM)
        score_BHL = score_BHL + (1 - mask_BL1.transpose(1, 2)) * MASKED
        # An empty history leaves a uniform softmax over padding: the mask on values empties it.
        value_BLD = self.values(self.dropout(event_BLD)) * mask_BL1
        return (torch.softmax(score_BHL, dim=2) @ value_BLD).flatten(1)
