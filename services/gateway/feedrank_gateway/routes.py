"""GET /v1/users/{user_id}/feed."""

from __future__ import annotations

import time

from fastapi import FastAPI, Request, Response
from feedrank_core.contracts.api import FeedResponse, Problem
from feedrank_core.contracts.events import Surface
from feedrank_core.contracts.slates import Degraded
from feedrank_core.runtime.http import PROBLEM_TYPE, problem
from feedrank_core.runtime.metrics import Metrics
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from feedrank_gateway.cursor import BadCursorError, CursorCodec
from feedrank_gateway.feed import FeedService, NoBundleError, StaleCursorError
from feedrank_gateway.query import PARAMETERS, InvalidQueryError, parse

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


def add_feed_routes(
    app: FastAPI, service: FeedService, cursors: CursorCodec, metrics: Metrics
) -> None:
    """Put the feed first among the routes, without what FastAPI does around an endpoint.

    It has no body and no dependencies, and its parameters are checked by hand.
    """
    requests = metrics.counter("requests_total")
    answered = {surface: requests.labels(str(surface), "200") for surface in Surface}
    seconds = metrics.histogram("feed_seconds")
    degraded = {d: metrics.counter("degraded_total").labels(str(d)) for d in Degraded}

    def refuse(status: int, title: str, error: Exception, remedy: str, field: str) -> Response:
        requests.labels("any", str(status)).inc()
        return problem(status, title, str(error), remedy, field)

    @app.get(
        "/v1/users/{user_id:id}/feed",
        response_model=None,
        responses={200: {"model": FeedResponse}, **_PROBLEMS},
        openapi_extra={"parameters": PARAMETERS},
    )
    async def feed(request: Request) -> Response:
        """One page of the reader's feed."""
        start = time.perf_counter()
        try:
            asked = parse(request.path_params["user_id"], request.query_params, cursors)
            page = await service.page(asked)
        except InvalidQueryError as error:
            return refuse(
                422, "Unprocessable Content", error, f"correct {error.field}", error.field
            )
        except BadCursorError as error:
            return refuse(400, "Bad Request", error, _NEW_SESSION, "cursor")
        except StaleCursorError as error:
            return refuse(410, "Gone", error, _NEW_SESSION, "cursor")
        except NoBundleError as error:
            return refuse(503, "No bundle", error, "run `feedrank daily`", "bundle")
        for reason in page.degraded:
            degraded[reason].inc()
        answered[page.surface].inc()
        response = Response(page.answer(), media_type="application/json")
        seconds.observe(time.perf_counter() - start)
        return response

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        response = await feed(Request(scope, receive, send))
        await response(scope, receive, send)

    route = app.router.routes.pop()
    assert isinstance(route, Route)
    route.app = answer
    app.router.routes.insert(0, route)
