"""GET /v1/users/{user_id}/feed."""

from __future__ import annotations

import time
from dataclasses import dataclass

from fastapi import FastAPI, Request, Response
from feedrank_core.contracts.api import FeedResponse, Problem
from feedrank_core.contracts.events import Surface
from feedrank_core.contracts.slates import Degraded
from feedrank_core.runtime.http import PROBLEM_TYPE, on_bug, problem
from feedrank_core.runtime.metrics import Metrics
from starlette.datastructures import QueryParams
from starlette.types import Receive, Scope, Send

from feedrank_gateway.cursor import BadCursorError, CursorCodec
from feedrank_gateway.feed import FeedService, NoBundleError, StaleCursorError
from feedrank_gateway.query import PARAMETERS, InvalidQueryError, parse

_BEFORE, _AFTER = "/v1/users/", "/feed"
_SHORTEST = len(_BEFORE) + len(_AFTER)
_NEW_SESSION = "ask without a cursor: a new session begins"
_PROBLEMS: dict[int | str, dict[str, object]] = {
    status: {"model": Problem, "description": description, "content": {PROBLEM_TYPE: {}}}
    for status, description in (
        (400, "The cursor is not one that this service gave to this user."),
        (410, "The session behind the cursor is over."),
        (422, "A parameter breaks its rule; `field` names it."),
        (503, "No bundle was published yet."),
    )
}


@dataclass(frozen=True, slots=True)
class FeedFirst:
    """ASGI: answers GET of a feed itself, and hands every other request to the application.

    A feed has no body and no dependencies and its parameters are checked by hand, so it pays for
    nothing of what a FastAPI application puts around an endpoint.
    """

    app: FastAPI
    feed: FeedEndpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the lifespan."""
        user_id = _feed_of(scope)
        if user_id is None:
            await self.app(scope, receive, send)
            return
        response = await self.feed(user_id, scope["query_string"])
        await response(scope, receive, send)


def _feed_of(scope: Scope) -> str | None:
    """Whose feed is asked for by GET, or None. The id is as it came."""
    if scope["type"] != "http" or scope["method"] != "GET":
        return None
    path: str = scope["path"]
    if len(path) < _SHORTEST or not (path.startswith(_BEFORE) and path.endswith(_AFTER)):
        return None
    return path[len(_BEFORE) : -len(_AFTER)]


class FeedEndpoint:
    """From a reader and a query to the answer, counted and timed."""

    def __init__(self, service: FeedService, cursors: CursorCodec, metrics: Metrics) -> None:
        self._service, self._cursors = service, cursors
        self._requests = metrics.counter("requests_total")
        self._answered = {s: self._requests.labels(str(s), "200") for s in Surface}
        self._seconds = metrics.histogram("feed_seconds")
        self._degraded = {d: metrics.counter("degraded_total").labels(str(d)) for d in Degraded}

    async def __call__(self, user_id: str, query: bytes) -> Response:
        """One page of the reader's feed, or the problem with the request. Raises nothing."""
        start = time.perf_counter()
        try:
            asked = parse(user_id, QueryParams(query) if query else {}, self._cursors)
            page = await self._service.page(asked)
        except InvalidQueryError as error:
            remedy = f"correct {error.field}"
            return self._refuse(422, "Unprocessable Content", error, remedy, error.field)
        except BadCursorError as error:
            return self._refuse(400, "Bad Request", error, _NEW_SESSION, "cursor")
        except StaleCursorError as error:
            return self._refuse(410, "Gone", error, _NEW_SESSION, "cursor")
        except NoBundleError as error:
            return self._refuse(503, "No bundle", error, "run `feedrank daily`", "bundle")
        except Exception as error:
            self._requests.labels("any", "500").inc()
            return on_bug("GET", _BEFORE + user_id + _AFTER, error)
        for reason in page.degraded:
            self._degraded[reason].inc()
        self._answered[page.surface].inc()
        response = Response(page.answer(), media_type="application/json")
        self._seconds.observe(time.perf_counter() - start)
        return response

    def _refuse(
        self, status: int, title: str, error: Exception, remedy: str, field: str
    ) -> Response:
        self._requests.labels("any", str(status)).inc()
        return problem(status, title, str(error), remedy, field)


def document_feed(app: FastAPI, endpoint: FeedEndpoint) -> None:
    """Give the application the feed's route: for /openapi.json, and to refuse other methods."""

    @app.get(
        _BEFORE + "{user_id:id}" + _AFTER,
        response_model=None,
        responses={200: {"model": FeedResponse}, **_PROBLEMS},
        openapi_extra={"parameters": PARAMETERS},
    )
    async def feed(request: Request) -> Response:
        """One page of the reader's feed."""
        return await endpoint(request.path_params["user_id"], request.scope["query_string"])
