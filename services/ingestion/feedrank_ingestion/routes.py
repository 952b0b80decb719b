"""The intake's HTTP API: events, items and profiles in, one answer a request.

Bodies are read raw: validation is this service's own, because a batch is refused by member and
not as a whole. The OpenAPI document names the same models.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi import Path as PathParameter
from fastapi.openapi.utils import get_openapi
from feedrank_core.contracts.api import (
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
from feedrank_core.runtime.bus import Outgoing
from feedrank_core.runtime.http import PROBLEM_TYPE, problem
from feedrank_core.runtime.metrics import Metrics
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

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
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {"description": "The body is no JSON.", "content": _PROBLEM},
    413: {"description": "The body is larger than 1 MiB.", "content": _PROBLEM},
    422: {"description": "The body or the path is of another shape.", "content": _PROBLEM},
    503: {"description": "The bus does not answer; send it again.", "content": _PROBLEM},
}

PathId = Annotated[ExternalId, PathParameter(max_length=MAX_ID_LENGTH)]


def router(publisher: GroupPublisher, metrics: Metrics) -> APIRouter:
    """The routes. Each answers 202 only once the bus holds what it accepted."""
    routes = APIRouter(prefix="/v1", responses=_PROBLEMS)
    _add_batch_routes(routes, Door(publisher, metrics))
    _add_single_routes(routes, Door(publisher, metrics))
    return routes


class Door:
    """Takes a body, holds what is good of it on the bus, and says what came of it."""

    def __init__(self, publisher: GroupPublisher, metrics: Metrics) -> None:
        self._publisher = publisher
        self._metrics = metrics

    async def batch(self, request: Request, kind: Kind) -> Response:
        """Answer a batch. Raises: BusUnavailableError."""
        body = await request.body()
        return await self._answer(kind.name, partial(take_batch, body, kind))

    async def one(
        self, request: Request, kind: str, model: type[BaseModel], identity: dict[str, str]
    ) -> Response:
        """Answer one item or profile. Raises: BusUnavailableError."""
        body = await request.body()
        return await self._answer(kind, partial(take_one, body, model, identity))

    async def hold(self, kind: str, taken: Taken) -> Response:
        """Answer once the bus holds it. Raises: BusUnavailableError."""
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
        except MalformedBodyError as error:
            self._metrics.counter("rejected_total").labels(kind, "json").inc()
            return problem(400, "Malformed JSON", str(error), "send valid JSON", "body")
        except InvalidBodyError as error:
            self._metrics.counter("rejected_total").labels(kind, "body").inc()
            remedy = f"correct {error.field} and send again"
            return problem(422, "Invalid body", f"{error.field}: {error}", remedy, error.field)
        return await self.hold(kind, taken)


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
    async def delete_item(item_id: PathId) -> Response:
        """Withdraw an item: no feed shows it from now on. Publishing it again brings it back."""
        gone = withdrawal(item_id, datetime.now(UTC)).model_dump_json().encode()
        records = {ITEMS.name: [Outgoing(item_id, gone)]}
        return await door.hold("items", Taken(records, num_accepted=1))


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
