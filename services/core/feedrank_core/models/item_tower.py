"""The item tower: what an item is and who liked it, as one vector.

N items, D = EMBEDDING_DIM, T tags, L n-grams. Inputs as in `features.encoding`.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from feedrank_core.contracts.bundle import EMBEDDING_DIM
from feedrank_core.contracts.items import IMAGE_VECTOR_DIM, TEXT_VECTOR_DIM
from feedrank_core.features.encoding import FeatureSchema

FIELD_DIM = 16
TEXT_DIM = 32
HIDDEN_DIM = 128
CONTENT_WEIGHT = 0.1
"""Of the content beside the id, where scores are cosines: each step moves all that an MLP says, and
an id only when its item is met."""
LONGEST_MEAN = 100
"""Batches that the mean of all items' content is taken over."""


def table(
    num_rows: int, dim: int, *, padding: int | None = 0, sparse: bool = False
) -> nn.Embedding:
    """An embedding table that starts small, so that unseen rows say little.

    The gradient of a sparse one holds the rows of a batch alone.
    """
    embedding = nn.Embedding(num_rows, dim, padding_idx=padding, sparse=sparse)
    nn.init.normal_(embedding.weight, std=0.05)
    if padding is not None:
        with torch.no_grad():
            embedding.weight[padding].zero_()
    return embedding


def mean_of_bag(embedding: nn.Embedding, ids: Tensor) -> Tensor:
    """Mean over the ids that are not padding; zero for an empty bag. Shapes: (N, L) to (N, D)."""
    count_N1 = (ids != 0).sum(dim=1, keepdim=True).clamp(min=1)
    return embedding(ids).sum(dim=1) / count_N1


def root_of_bag(embedding: nn.Embedding, ids: Tensor) -> Tensor:
    """The sum over the ids that are not padding, by the root of their number: as long as one.

    Shapes: (N, L) to (N, D).
    """
    count_N1 = (ids != 0).sum(dim=1, keepdim=True).clamp(min=1)
    return embedding(ids).sum(dim=1) * count_N1.rsqrt()


def as_item(vector_ND: Tensor, *, cosine: bool) -> Tensor:
    """The item tower's last step; the last number is how much everybody likes the item.

    For cosines the others are a direction: of vectors of one length nothing else could tell a hit
    from a rarity that means the same. Shapes: (N, D).
    """
    if not cosine:
        return vector_ND
    return torch.cat([nn.functional.normalize(vector_ND[:, :-1], dim=1), vector_ND[:, -1:]], dim=1)


def as_reader(vector: Tensor, *, cosine: bool) -> Tensor:
    """A user tower's last step: 1 for what everybody likes, and for cosines a direction before it.

    Shapes: (..., D).
    """
    taste = nn.functional.normalize(vector[..., :-1], dim=-1) if cosine else vector[..., :-1]
    return torch.cat([taste, torch.ones_like(vector[..., -1:])], dim=-1)


def vectors_at(item_UD: Tensor, place: Tensor) -> Tensor:
    """The vectors of some places among a batch's items. Shapes: any, int64 into U, to (..., D)."""
    # index_select of the flat ids: its gradient is one index_add, deterministic on a CPU.
    return item_UD.index_select(0, place.flatten()).view(*place.shape, item_UD.shape[1])


def history_vectors(item_UD: Tensor, history_BL: Tensor, mask_BL: Tensor) -> Tensor:
    """The vectors of histories, zero where they hold nothing. Shapes: (B, L, D)."""
    return vectors_at(item_UD, history_BL) * mask_BL.unsqueeze(2)


class Centred(nn.Module):
    """Takes off what all items have in common, which tells none from another.

    It would outgrow the ids: each step moves it, and an id only when its item is met. Serving
    takes off the mean that training last knew.
    """

    mean: Tensor
    num_batches: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("num_batches", torch.zeros(()))

    def forward(self, content_ND: Tensor) -> Tensor:
        """Shapes: (N, D)."""
        if not self.training:
            return content_ND - self.mean
        mean_D = content_ND.mean(dim=0)
        with torch.no_grad():
            self.num_batches += 1
            self.mean += (mean_D - self.mean) / self.num_batches.clamp(max=LONGEST_MEAN)
        return content_ND - mean_D


class ItemTower(nn.Module):
    """Content through an MLP, plus the id's embedding past it.

    The id goes round the MLP as a residual: what is learned of an item from its readers is not
    squeezed through the layers that serve items nobody has read. `id_dropout` is the share of items
    shown without theirs in training, so that content alone must do.
    With `kin` each tag goes round it too, by a vector of its own: what an id has not learned yet
    is begun by the items that share its tags.
    Source: DropoutNet (Volkovs et al. 2017) for ids left out; factorisation machines (Rendle 2010)
    for tags beside ids.
    """

    def __init__(
        self, schema: FeatureSchema, *, id_dropout: float, cosine: bool = False, kin: bool = False
    ) -> None:
        super().__init__()
        self.cosine = cosine
        self.id_dropout = id_dropout
        self.ids = table(schema.num_id_buckets, EMBEDDING_DIM, padding=None, sparse=True)
        with torch.no_grad():
            self.ids.weight[:, -1].zero_()
        self.types = table(len(schema.item_types) + 2, FIELD_DIM)
        self.categories = table(len(schema.categories) + 2, FIELD_DIM)
        self.languages = table(len(schema.languages) + 2, FIELD_DIM)
        self.creators = table(schema.num_creator_buckets, FIELD_DIM, sparse=True)
        self.tags = table(schema.num_tag_buckets, FIELD_DIM)
        self.kin = table(schema.num_tag_buckets, EMBEDDING_DIM) if kin else None
        self.text = table(schema.num_text_buckets, TEXT_DIM)
        width = 5 * FIELD_DIM + TEXT_DIM + TEXT_VECTOR_DIM + IMAGE_VECTOR_DIM + 3
        self.content = nn.Sequential(
            nn.Linear(width, HIDDEN_DIM), nn.GELU(), nn.Linear(HIDDEN_DIM, EMBEDDING_DIM)
        )
        # Other dot products keep what they were tuned with.
        is_beside = cosine or kin
        self.centred = Centred(EMBEDDING_DIM) if is_beside else nn.Identity()
        self.content_weight = CONTENT_WEIGHT if is_beside else 1.0

    def forward(
        self,
        id_buckets: Tensor,
        id_weight: Tensor,
        categorical: Tensor,
        tags: Tensor,
        text: Tensor,
        text_vector: Tensor,
        image_vector: Tensor,
        vector_mask: Tensor,
        dense: Tensor,
    ) -> Tensor:
        """The vectors.

        Vectors that no item of a catalogue has may be left out: both, (N, 0), or the image's.
        Shapes: (N, D).
        """
        if self.training and self.id_dropout > 0:
            id_weight = id_weight * (torch.rand_like(id_weight) >= self.id_dropout)
        row_NPD = self.ids(id_buckets)
        # A step moves each row as far as a tag: beside those an id must not move twice as far.
        id_ND = (row_NPD.sum(dim=1) if self.kin is None else row_NPD.mean(dim=1)) * id_weight
        fields = [
            self.types(categorical[:, 0]),
            self.categories(categorical[:, 1]),
            self.languages(categorical[:, 2]),
            self.creators(categorical[:, 3]),
            mean_of_bag(self.tags, tags),
            mean_of_bag(self.text, text),
            vector_mask,
            dense,
            text_vector * vector_mask[:, :1],
            image_vector * vector_mask[:, 1:],
        ]
        field_NW = torch.cat(fields, dim=1)
        first = cast(nn.Linear, self.content[0])
        content_ND = nn.functional.linear(
            field_NW, first.weight[:, : field_NW.shape[1]], first.bias
        )
        content_ND = self.content[1:](content_ND)
        content_ND = self.content_weight * self.centred(content_ND)
        if self.kin is not None:
            content_ND = content_ND + root_of_bag(self.kin, tags)
        return as_item(id_ND + content_ND, cosine=self.cosine)
