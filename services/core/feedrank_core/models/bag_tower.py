"""The user tower for actions whose order says little: one weighted sum, and the profile.

B readers, L actions, D = EMBEDDING_DIM.
"""

from __future__ import annotations

from torch import Tensor, nn

from feedrank_core.contracts.bundle import EMBEDDING_DIM
from feedrank_core.features.encoding import FeatureSchema
from feedrank_core.models.item_tower import as_reader, table
from feedrank_core.models.user_tower import NUM_AGE_BUCKETS, Profile, age_buckets

PROFILE_WEIGHT = 0.1
"""Of the profile beside the history: a fresh linear map says nothing yet."""


class BagTower(nn.Module):
    """The mean of the history, newer actions weighted as was learned.

    A reader's vector is near the items they like, so no linear map lies between the two. Without
    history the profile alone speaks.
    Source: SimpleX (Mao et al. 2021), without its table of user ids.
    """

    def __init__(
        self, schema: FeatureSchema, *, dropout: float = 0.1, cosine: bool = False
    ) -> None:
        super().__init__()
        self.cosine = cosine
        self.actions = table(len(schema.actions) + 2, EMBEDDING_DIM)
        self.ages = nn.Embedding(NUM_AGE_BUCKETS, 1)
        nn.init.zeros_(self.ages.weight)
        self.profile = Profile(schema)
        self.of_profile = nn.Linear(self.profile.width, EMBEDDING_DIM)
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
        weight_BL = self.ages(age_buckets(history_ages_s)).squeeze(2).exp() * history_mask
        event_BLD = history_vectors + self.actions(history_actions)
        sum_BD = (weight_BL.unsqueeze(1) @ event_BLD).squeeze(1)
        mean_BD = sum_BD / weight_BL.sum(dim=1, keepdim=True).clamp(min=1e-6)
        profile_BD = self.of_profile(self.profile(profile, interests, dense))
        vector_BD = self.dropout(mean_BD) + PROFILE_WEIGHT * profile_BD
        return as_reader(vector_BD, cosine=self.cosine)
