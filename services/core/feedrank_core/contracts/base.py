"""What all messages share: strictness, UTC times, a schema version."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict


def to_utc(moment: datetime) -> datetime:
    """The same instant in UTC. Raises: ValueError beyond the calendar."""
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        # pydantic lets any other exception through, past whoever refuses a bad message.
        raise ValueError("must lie in the years 1 to 9999 in UTC") from error


Timestamp = Annotated[AwareDatetime, AfterValidator(to_utc)]
"""An aware instant in UTC; a naive time is refused. RFC 3339 outside."""


class Message(BaseModel):
    """Base of every contract: unknown fields and NaN are refused, instances are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
