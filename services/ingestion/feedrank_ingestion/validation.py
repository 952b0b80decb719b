"""What the intake takes and what it refuses, and why. Pure: no bus, no clock.

A batch is parsed and validated in one pass; only where that pass fails is each member looked at
alone, so that one bad member costs the others nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeVar

from feedrank_core.contracts.api import MAX_BATCH, MAX_FUTURE_S, Rejection
from feedrank_core.contracts.events import ClientEvent, ClientImpression, ClientInteraction
from feedrank_core.contracts.items import ClientItem, ItemBody
from feedrank_core.contracts.topics import IMPRESSIONS, INTERACTIONS, ITEMS, USERS, Topic
from feedrank_core.contracts.users import ClientUser
from feedrank_core.runtime.bus import Outgoing
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, from_json, to_json

Body = TypeVar("Body", bound=BaseModel)
MAX_REASON_CHARACTERS = 300
FUTURE = "future"


class MalformedBodyError(ValueError):
    """The body is no JSON at all."""


class InvalidBodyError(ValueError):
    """The body is JSON of another shape; `field` names where."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


@dataclass(frozen=True)
class Kind:
    """A kind of batch: its envelope, its one field, and the model of a member."""

    name: str
    envelope: type[BaseModel]
    field: str
    model_of: Callable[[dict[str, Any]], type[BaseModel]]


@dataclass
class Taken:
    """What of a batch goes to the bus. `reasons` are the codes of the rejections, for metrics."""

    records: dict[str, list[Outgoing]] = field(default_factory=dict)
    num_accepted: int = 0
    rejected: list[Rejection] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)


def take_batch(body: bytes, kind: Kind, *, now: datetime) -> Taken:
    """The members that may be published, stamped `now`, and why the others may not.

    Raises: MalformedBodyError, InvalidBodyError for a body that is no batch at all.
    """
    try:
        batch = kind.envelope.model_validate_json(body, strict=True)
        members: list[BaseModel | None] = list(getattr(batch, kind.field))
        taken = Taken()
    except ValidationError:
        members, taken = _one_by_one(body, kind)
    _stamp(members, taken, now)
    taken.rejected.sort(key=lambda r: r.index)
    return taken


def read_body(body: bytes, model: type[Body]) -> Body:
    """A body that is one object. Raises: MalformedBodyError, InvalidBodyError naming the field."""
    return _checked(_object(body), model)


def take_one(
    body: bytes, model: type[BaseModel], identity: dict[str, str], *, now: datetime
) -> Taken:
    """One item or profile whose id stands in the path.

    Raises: MalformedBodyError, InvalidBodyError naming the field.
    """
    raw = _object(body)
    for name, value in identity.items():
        if raw.setdefault(name, value) != value:
            raise InvalidBodyError(name, "differs from the id in the path")
    member = _checked(raw, model)
    if ahead := _ahead_of(member, now + timedelta(seconds=MAX_FUTURE_S)):
        raise InvalidBodyError(ahead, _future_reason())
    taken = Taken()
    _stamp([member], taken, now)
    return taken


def _one_by_one(body: bytes, kind: Kind) -> tuple[list[BaseModel | None], Taken]:
    raw = _parse(body)
    listed = raw.get(kind.field) if isinstance(raw, dict) else None
    if not isinstance(raw, dict) or not isinstance(listed, list):
        raise InvalidBodyError(kind.field, "must be a list in an object")
    if extra := sorted(set(raw) - {kind.field}):
        raise InvalidBodyError(extra[0], "is not known here")
    if not 1 <= len(listed) <= MAX_BATCH:
        raise InvalidBodyError(kind.field, f"must have 1 to {MAX_BATCH} members, not {len(listed)}")
    members: list[BaseModel | None] = []
    taken = Taken()
    for index, one in enumerate(listed):
        try:
            members.append(_member(one, kind))
        except ValidationError as error:
            members.append(None)
            name, message, code = _explain(error)
            _reject(taken, index, name, message, code)
        except InvalidBodyError as error:
            members.append(None)
            _reject(taken, index, error.field, str(error), "shape")
    return members, taken


def _member(one: Any, kind: Kind) -> BaseModel:
    if not isinstance(one, dict):
        raise InvalidBodyError("body", "must be an object")
    return kind.model_of(one).model_validate_json(to_json(one), strict=True)


def _stamp(members: list[BaseModel | None], taken: Taken, now: datetime) -> None:
    """Serialise each member as its topic's message; a repeated event id is published once."""
    latest = now + timedelta(seconds=MAX_FUTURE_S)
    stamp = b',"accepted_at":"' + now.isoformat().encode() + b'"}'
    seen: set[str] = set()
    for index, member in enumerate(members):
        if member is None:
            continue
        if ahead := _ahead_of(member, latest):
            _reject(taken, index, ahead, _future_reason(), FUTURE)
            continue
        taken.num_accepted += 1
        if isinstance(member, ClientEvent):
            if member.event_id in seen:
                continue
            seen.add(member.event_id)
        topic, key = _destination(member)
        value = member.__pydantic_serializer__.to_json(member)[:-1] + stamp
        taken.records.setdefault(topic.name, []).append(Outgoing(key, value))


def _destination(member: BaseModel) -> tuple[Topic, str]:
    if isinstance(member, ClientImpression):
        return IMPRESSIONS, member.user_id
    if isinstance(member, ClientInteraction):
        return INTERACTIONS, member.user_id
    if isinstance(member, ClientItem):
        return ITEMS, member.item_id
    assert isinstance(member, ClientUser)
    return USERS, member.user_id


def _ahead_of(member: BaseModel, latest: datetime) -> str | None:
    """The name of a time that lies further ahead than a clock may run, if there is one."""
    if isinstance(member, ClientEvent) and member.occurred_at > latest:
        return "occurred_at"
    if isinstance(member, ItemBody) and member.created_at > latest:
        return "created_at"
    return None


def _future_reason() -> str:
    return f"lies more than {MAX_FUTURE_S:.0f} seconds in the future; check the client's clock"


def _reject(taken: Taken, index: int, name: str, message: str, code: str) -> None:
    reason = f"{name}: {message}"[:MAX_REASON_CHARACTERS].encode("utf-8", "replace").decode()
    taken.rejected.append(Rejection(index=index, reason=reason))
    taken.reasons.append(code)


def _parse(body: bytes) -> Any:
    try:
        return from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise MalformedBodyError(str(error)) from error


def _object(body: bytes) -> dict[str, Any]:
    raw = _parse(body)
    if not isinstance(raw, dict):
        raise InvalidBodyError("body", "must be an object")
    return raw


def _checked(raw: dict[str, Any], model: type[Body]) -> Body:
    try:
        return model.model_validate_json(to_json(raw), strict=True)
    except ValidationError as error:
        name, message, _ = _explain(error)
        raise InvalidBodyError(name, message) from error


def _explain(error: ValidationError) -> tuple[str, str, str]:
    """Field, message and code of what is wrong first."""
    first: ErrorDetails = error.errors(include_url=False, include_context=False)[0]
    name = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    if not name:
        # A model's own rule names its field first: "dwell_s is required when ...".
        name, _, message = message.partition(" ")
    return name, message, first["type"]
