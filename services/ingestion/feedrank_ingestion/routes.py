"""The intake's HTTP API: events, items and profiles in, one answer a request.

Bodies are read raw: validation is this service's own, because a batch is refused by member and
not as a whole. The OpenAPI document names the same models.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi import Path as PathParameter
from fastapi.openapi.utils import get_openapi
from feedrank_core.contracts.api import (
    MAX_BODY_BYTES,
    BatchResult,
    EventBatch,
    ItemBatch,
    Problem,
    SentImpression,
    UserBatch,
)
from feedrank_core.contracts.events import ClientInteraction
from feedrank_core.contracts.ids import MAX_ID_LENGTH, ExternalId
from feedrank_core.contracts.items import ClientItem, ItemBody, withdrawal
from feedrank_core.contracts.topics import ITEMS
from feedrank_core.contracts.users import ClientUser, UserBody
from feedrank_core.runtime.bus import BusUnavailableError, Outgoing
from feedrank_core.runtime.http import PROBLEM_TYPE, RETRY_AFTER_S, SlowBodyError, problem
from feedrank_core.runtime.metrics import Metrics
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from feedrank_ingestion.admission import Admission, OverCapacityError
from feedrank_ingestion.publishing import GroupPublisher
from feedrank_ingestion.validation import (
    InvalidBodyError,
    Kind,
    MalformedBodyError,
    Taken,
    take_batch,
    take_one,
)

EVENTS = Kind(
    "events",
    EventBatch,
    "events",
    lambda raw: SentImpression if raw.get("event_type") == "impression" else ClientInteraction,
)
ITEM_BATCH = Kind("items", ItemBatch, "items", lambda _: ClientItem)
USER_BATCH = Kind("users", UserBatch, "users", lambda _: ClientUser)

_BODIES = (EventBatch, ItemBatch, UserBatch, ItemBody, UserBody)
_REF = "#/components/schemas/{model}"
_PROBLEM = {PROBLEM_TYPE: {"schema": {"$ref": _REF.format(model="Problem")}}}
_RETRY_AFTER = {
    "Retry-After": {
        "description": "Seconds to wait before the same request is sent again.",
        "required": True,
        "schema": {"type": "integer", "minimum": 1},
    }
}
TURNED_AWAY: dict[int | str, dict[str, Any]] = {
    429: {
        "description": "More is being read or waits for the bus than may. Send it again.",
        "content": _PROBLEM,
        "headers": _RETRY_AFTER,
    },
    503: {
        "description": "The bus is away; nothing may be assumed held. Send it again.",
        "content": _PROBLEM,
        "headers": _RETRY_AFTER,
    },
}
"""The answers to whatever would be held on the bus and is not."""
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {"description": "The body is no JSON.", "content": _PROBLEM},
    408: {"description": "The body did not arrive in time.", "content": _PROBLEM},
    413: {"description": "The body is larger than 1 MiB.", "content": _PROBLEM},
    422: {"description": "The body or the path is of another shape.", "content": _PROBLEM},
} | TURNED_AWAY

PathId = Annotated[ExternalId, PathParameter(max_length=MAX_ID_LENGTH)]


def router(publisher: GroupPublisher, admission: Admission, metrics: Metrics) -> APIRouter:
    """The routes. Each answers 202 only once the bus holds what it accepted."""
    routes = APIRouter(prefix="/v1", responses=_PROBLEMS)
    door = Door(publisher, admission, metrics)
    _add_batch_routes(routes, door)
    _add_single_routes(routes, door)
    return routes


async def on_over_capacity(request: Request, error: Exception) -> Response:
    """429: a client that waits costs less than one that is let in and times out."""
    return problem(
        429,
        "Over capacity",
        str(error),
        "send the same request again after Retry-After seconds",
        headers={"Retry-After": RETRY_AFTER_S},
    )


class Door:
    """Takes a body, holds what is good of it on the bus, and says what came of it."""

    def __init__(self, publisher: GroupPublisher, admission: Admission, metrics: Metrics) -> None:
        self._publisher = publisher
        self._admission = admission
        self._metrics = metrics
        metrics.gauge("waiting_bytes").set_function(lambda: admission.waiting_bytes)

    async def batch(self, request: Request, kind: Kind) -> Response:
        """Answer a batch. Raises: BusUnavailableError, OverCapacityError."""
        async with self._room_for(request):
            body = await request.body()
            return await self._answer(kind.name, partial(take_batch, body, kind))

    async def one(
        self, request: Request, kind: str, model: type[BaseModel], identity: dict[str, str]
    ) -> Response:
        """Answer one item or profile. Raises: BusUnavailableError, OverCapacityError."""
        async with self._room_for(request):
            body = await request.body()
            return await self._answer(kind, partial(take_one, body, model, identity))

    async def withdrawn(self, request: Request, item_id: str) -> Response:
        """Answer a withdrawal. Raises: BusUnavailableError, OverCapacityError."""
        async with self._room_for(request):
            gone = withdrawal(item_id, datetime.now(UTC)).model_dump_json().encode()
            records = {ITEMS.name: [Outgoing(item_id, gone)]}
            return await self._hold("items", Taken(records, num_accepted=1))

    @asynccontextmanager
    async def _room_for(self, request: Request) -> AsyncIterator[None]:
        # Asked before the body is read: what has no room is never held in memory.
        length = request.headers.get("content-length", "")
        try:
            with self._admission.room_for(int(length) if length.isdigit() else MAX_BODY_BYTES):
                yield
        except OverCapacityError:
            self._metrics.counter("turned_away_total").labels("capacity").inc()
            async for _ in request.stream():
                pass  # dropped: an answer amid the body would cost the client its connection
            raise
        except SlowBodyError:
            self._metrics.counter("turned_away_total").labels("slow").inc()
            raise
        except BusUnavailableError:
            self._metrics.counter("turned_away_total").labels("bus").inc()
            raise

    async def _hold(self, kind: str, taken: Taken) -> Response:
        started = time.perf_counter()
        await self._publisher.hold(taken.records)
        self._metrics.histogram("publish_seconds").observe(time.perf_counter() - started)
        for topic, records in taken.records.items():
            self._metrics.counter("accepted_total").labels(topic).inc(len(records))
        for reason in taken.reasons:
            self._metrics.counter("rejected_total").labels(kind, reason).inc()
        result = BatchResult(accepted=taken.num_accepted, rejected=tuple(taken.rejected))
        return Response(result.model_dump_json(), status_code=202, media_type="application/json")

    async def _answer(self, kind: str, take: Callable[..., Taken]) -> Response:
        try:
            taken = take(now=datetime.now(UTC))
        except (MalformedBodyError, InvalidBodyError) as error:
            reason = "json" if isinstance(error, MalformedBodyError) else "body"
            self._metrics.counter("rejected_total").labels(kind, reason).inc()
            return refusal(error)
        return await self._hold(kind, taken)


def refusal(error: MalformedBodyError | InvalidBodyError) -> Response:
    """What a body that cannot be taken is answered with."""
    if isinstance(error, MalformedBodyError):
        return problem(400, "Malformed JSON", str(error), "send valid JSON", "body")
    remedy = f"correct {error.field} and send again"
    return problem(422, "Invalid body", f"{error.field}: {error}", remedy, error.field)


def _accepts(model: type[BaseModel]) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": _REF.format(model=model.__name__)}}}
    return {
        "status_code": 202,
        "response_model": BatchResult,
        "openapi_extra": {"requestBody": {"required": True, "content": content}},
    }


def _add_batch_routes(routes: APIRouter, door: Door) -> None:
    @routes.post("/events", **_accepts(EventBatch))
    async def post_events(request: Request) -> Response:
        """Take impressions and interactions; each is accepted or refused by itself."""
        return await door.batch(request, EVENTS)

    @routes.post("/items:batch", **_accepts(ItemBatch))
    async def post_items(request: Request) -> Response:
        """Publish many items."""
        return await door.batch(request, ITEM_BATCH)

    @routes.post("/users:batch", **_accepts(UserBatch))
    async def post_users(request: Request) -> Response:
        """Publish many profiles."""
        return await door.batch(request, USER_BATCH)


def _add_single_routes(routes: APIRouter, door: Door) -> None:
    @routes.put("/items/{item_id:id}", **_accepts(ItemBody))
    async def put_item(item_id: PathId, request: Request) -> Response:
        """Publish an item, or replace it."""
        return await door.one(request, "items", ClientItem, {"item_id": item_id})

    @routes.put("/users/{user_id:id}", **_accepts(UserBody))
    async def put_user(user_id: PathId, request: Request) -> Response:
        """Publish a profile, or replace it."""
        return await door.one(request, "users", ClientUser, {"user_id": user_id})

    @routes.delete("/items/{item_id:id}", status_code=202, response_model=BatchResult)
    async def delete_item(item_id: PathId, request: Request) -> Response:
        """Withdraw an item: no feed shows it from now on. Publishing it again brings it back."""
        return await door.withdrawn(request, item_id)


def describe(app: FastAPI) -> None:
    """Complete the OpenAPI document with the models of the bodies that are read raw."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(title=app.title, version=app.version, routes=app.routes)
            models = [(m, "validation") for m in (*_BODIES, Problem)]
            _, found = models_json_schema(models, ref_template=_REF)  # pyright: ignore[reportArgumentType]
            schemas = document.setdefault("components", {}).setdefault("schemas", {})
            document["components"]["schemas"] = found["$defs"] | schemas
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi
