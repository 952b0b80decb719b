"""The HTTP base of every service: probes, metrics, problem details and a body limit.

A service adds its routes to the application that `create_app` returns, and nothing else here
differs between them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from feedrank_core.contracts.api import MAX_BODY_BYTES, Problem
from feedrank_core.runtime.bus import BusUnavailableError
from feedrank_core.runtime.metrics import EXPOSITION_TYPE, Metrics
from feedrank_core.runtime.problems import PROBLEM_TYPE, problem_body, readiness, sendable

RETRY_AFTER_S = "1"
MAX_BODY_S = 10.0
"""The largest body by a line of 1 Mbit/s."""

Ready = Callable[[], Awaitable[str | None]]
Lifespan = Callable[[Any], AbstractAsyncContextManager[Any]]

log = structlog.get_logger(__name__)


class IdConvertor(Convertor[str]):
    """`{user_id:id}` in a path takes any text, also none, slashes and line ends.

    So the rule of ids judges it, and names it, where Starlette's own would answer 404.
    """

    regex = "(?s:.*)"

    def convert(self, value: str) -> str:
        """The text as it came."""
        return value

    def to_string(self, value: str) -> str:
        """The text as it is."""
        return value


register_url_convertor("id", IdConvertor())


def create_app(
    *,
    title: str,
    metrics: Metrics,
    ready: Ready,
    public: bool,
    lifespan: Lifespan | None = None,
    max_body_bytes: int = MAX_BODY_BYTES,
    max_body_s: float = MAX_BODY_S,
) -> FastAPI:
    """An application that answers probes and metrics and whose every error is a problem.

    `ready` gives None when the service can do its work, else the reason why it cannot. Only a
    public service shows `/docs` and `/openapi.json`.
    """
    app = FastAPI(
        title=title,
        lifespan=lifespan,
        docs_url="/docs" if public else None,
        redoc_url=None,
        openapi_url="/openapi.json" if public else None,
        responses={422: {"model": Problem, "content": {PROBLEM_TYPE: {}}}} if public else None,
    )
    app.add_middleware(BodyLimit, max_body_bytes=max_body_bytes, max_body_s=max_body_s)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(BusUnavailableError, _on_bus_unavailable)
    app.add_exception_handler(Exception, _on_bug)
    _add_probes(app, metrics, ready)
    return app


def problem(
    status: int,
    title: str,
    detail: str,
    remedy: str | None = None,
    field: str | None = None,
    headers: dict[str, str] | None = None,
) -> Response:
    """An RFC 9457 answer. `remedy` says what the caller can do; `field` names what was wrong."""
    body = problem_body(status, title, detail, remedy, field)
    return Response(body, status_code=status, headers=headers, media_type=PROBLEM_TYPE)


def on_bug(method: str, path: str, error: Exception) -> Response:
    """Log what nobody expected, and answer 500 without its details."""
    log.error("unhandled_error", method=method, path=path, exc_info=error)
    return problem(500, _title(500), "an unexpected error; it is in the service's log", "report it")


def field_of(location: Sequence[str | int]) -> str:
    """The name of a field as the caller wrote it, from a pydantic location: `events.3.user_id`."""
    # ("body", 17) is a syntax error at byte 17: no field of the caller's.
    is_syntax = len(location) == 2 and isinstance(location[1], int)
    return ".".join(str(part) for part in location[1:] or ("body",)) if not is_syntax else "body"


class SlowBodyError(HTTPException):
    """The body did not arrive in time; what was asked is not done and the connection ends."""

    def __init__(self, max_body_s: float) -> None:
        detail = f"the body did not arrive within {max_body_s:g} s"
        super().__init__(HTTPStatus.REQUEST_TIMEOUT, detail, headers={"Connection": "close"})


class BodyLimit:
    """Refuses a larger body with a problem, by its declared length or while it is read.

    A body that is not there `max_body_s` after the service began to read it is refused too.
    """

    def __init__(self, app: ASGIApp, max_body_bytes: int, max_body_s: float) -> None:
        self.app = app
        self.max_body_bytes = max_body_bytes
        self.max_body_s = max_body_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if _declared_length(scope) > self.max_body_bytes:
            status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
            await _refusal(status, self._detail)(scope, receive, send)
            return
        num_read, is_whole = 0, False
        deadline: float | None = None

        async def limited() -> Message:
            nonlocal num_read, is_whole, deadline
            if is_whole:
                return await receive()
            deadline = deadline or asyncio.get_running_loop().time() + self.max_body_s
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                raise SlowBodyError(self.max_body_s) from None
            is_whole = not message.get("more_body", False)
            num_read += len(message.get("body", b""))
            if num_read > self.max_body_bytes:
                raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, self._detail)
            return message

        await self.app(scope, limited, send)

    @property
    def _detail(self) -> str:
        return f"the body may have at most {self.max_body_bytes} bytes"


def _declared_length(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) if value.isdigit() else 0
    return 0


def _add_probes(app: FastAPI, metrics: Metrics, ready: Ready) -> None:
    async def healthz() -> Response:
        return Response(b'{"status":"ok"}', media_type="application/json")

    async def readyz() -> Response:
        try:
            reason = await ready()
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
        status, media_type, body = readiness(reason)
        return Response(body, status_code=status, media_type=media_type)

    async def exposition() -> Response:
        return Response(metrics.exposition(), media_type=EXPOSITION_TYPE)

    for path, endpoint in (("/healthz", healthz), ("/readyz", readyz), ("/metrics", exposition)):
        app.add_api_route(path, endpoint, methods=["GET"], include_in_schema=False)


_REMEDIES: dict[int, str] = {
    401: "send `Authorization: Bearer <key>` with a key of this installation",
    403: "use a key that has the scope of this call",
    404: "check the path against /openapi.json",
    405: "check the method against /openapi.json",
    408: "send the same request again, by a faster line or in smaller parts",
    413: "send fewer records a request",
    415: "send `Content-Type: application/json`",
    503: "send the request again in a moment",
}
_FIELDS: dict[int, str] = {413: "body"}


def _refusal(status: int, detail: str, headers: dict[str, str] | None = None) -> Response:
    return problem(
        status, _title(status), detail, _REMEDIES.get(status), _FIELDS.get(status), headers
    )


def _title(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


async def _on_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    field = field_of(first["loc"])
    more = len(error.errors()) - 1
    detail = f"{field}: {first['msg']}" + (f" (and {more} more)" if more else "")
    return problem(422, _title(422), detail, f"correct {sendable(field)} and send again", field)


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers) if error.headers else None
    return _refusal(error.status_code, str(error.detail), headers)


async def _on_bus_unavailable(request: Request, error: Exception) -> Response:
    log.warning("bus_unavailable", path=request.url.path, reason=str(error))
    return problem(
        503,
        "Bus unavailable",
        "the event bus did not answer in time; nothing of this request may be assumed held",
        "send the request again with the same ids: duplicates are recognised",
        headers={"Retry-After": RETRY_AFTER_S},
    )


async def _on_bug(request: Request, error: Exception) -> Response:
    return on_bug(request.method, request.url.path, error)
