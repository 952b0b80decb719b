"""Readers' profiles."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from feedrank_core.contracts.base import Message, Timestamp
from feedrank_core.contracts.ids import ExternalId
from feedrank_core.contracts.items import Label

UNKNOWN = "unknown"


class AgeBand(StrEnum):
    """Bands, because a birth date is more than a ranking needs to know."""

    UNKNOWN = "unknown"
    UNDER_18 = "under-18"
    FROM_18 = "18-24"
    FROM_25 = "25-34"
    FROM_35 = "35-44"
    FROM_45 = "45-54"
    FROM_55 = "55+"


class Platform(StrEnum):
    """What the reader reads on."""

    UNKNOWN = "unknown"
    IOS = "ios"
    ANDROID = "android"
    WEB = "web"
    TV = "tv"


class UserBody(Message):
    """A profile as the application sends it; the id stands in the path or the record key."""

    country: Annotated[str, Field(pattern=r"^([A-Z]{2}|unknown)$")] = UNKNOWN
    age_band: AgeBand = AgeBand.UNKNOWN
    platform: Platform = Platform.UNKNOWN
    interests: Annotated[tuple[Label, ...], Field(max_length=64)] = ()


class ClientUser(UserBody):
    """A profile in a batch."""

    user_id: ExternalId


class User(ClientUser):
    """A profile as the bus and the lake hold it."""

    accepted_at: Timestamp
