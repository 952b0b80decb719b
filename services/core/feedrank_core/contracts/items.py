"""The catalogue: posts, videos and articles as published."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from feedrank_core.contracts.base import Message, Timestamp
from feedrank_core.contracts.ids import ExternalId

TEXT_VECTOR_DIM = 64
IMAGE_VECTOR_DIM = 64

Label = Annotated[str, Field(min_length=1, max_length=64)]


class ItemType(StrEnum):
    """What kind of thing an item is."""

    POST = "post"
    VIDEO = "video"
    ARTICLE = "article"


DWELL_THRESHOLD_S: dict[ItemType, float] = {
    ItemType.POST: 5.0,
    ItemType.VIDEO: 15.0,
    ItemType.ARTICLE: 30.0,
}
"""A view longer than this engages, by item type. Seconds.

Our own choice, within the range that platforms publish for a "meaningful" view; the label of
every bundle records the values it was built with.
"""


class ItemBody(Message):
    """An item as its publisher sends it; the id stands in the path or the record key.

    Shapes: `text_vector` (TEXT_VECTOR_DIM,), `image_vector` (IMAGE_VECTOR_DIM,).
    """

    item_type: ItemType
    creator_id: ExternalId
    category: Label
    tags: Annotated[tuple[Label, ...], Field(max_length=32)] = ()
    language: Annotated[str, Field(min_length=2, max_length=16)] = "und"
    text: Annotated[str, Field(max_length=10_000)] = ""
    created_at: Timestamp
    duration_s: Annotated[float, Field(ge=0, le=864_000)] | None = None
    text_vector: (
        Annotated[tuple[float, ...], Field(min_length=TEXT_VECTOR_DIM, max_length=TEXT_VECTOR_DIM)]
        | None
    ) = None
    image_vector: (
        Annotated[
            tuple[float, ...], Field(min_length=IMAGE_VECTOR_DIM, max_length=IMAGE_VECTOR_DIM)
        ]
        | None
    ) = None
    active: bool = True


class ClientItem(ItemBody):
    """An item in a batch."""

    item_id: ExternalId


class Item(ClientItem):
    """An item as the bus and the lake hold it."""

    accepted_at: Timestamp


WITHDRAWN = "withdrawn"
"""Creator and category of a withdrawal: an inactive version that says nothing else of the item."""


def withdrawal(item_id: str, at: datetime) -> Item:
    """What `DELETE` publishes: it outlives compaction, so that whoever starts later knows.

    Readers take only `active` from it and keep the rest of the version they had.
    """
    return Item(
        item_id=item_id,
        item_type=ItemType.POST,
        creator_id=WITHDRAWN,
        category=WITHDRAWN,
        created_at=at,
        active=False,
        accepted_at=at,
    )
