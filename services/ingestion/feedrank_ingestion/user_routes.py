"""The calls about a reader as a whole: erase, merge, and what came of it."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request, Response
from feedrank_core.contracts.topics import USER_CHANGES, USERS
from feedrank_core.contracts.user_changes import ChangeKind, MergeBody, Receipt, UserChange
from feedrank_core.runtime.bus import Outgoing
from feedrank_core.runtime.http import PROBLEM_TYPE, problem

from feedrank_ingestion.admission import Admission
from feedrank_ingestion.publishing import GroupPublisher
from feedrank_ingestion.receipts import ReceiptBook
from feedrank_ingestion.routes import TURNED_AWAY, PathId, refusal
from feedrank_ingestion.validation import InvalidBodyError, MalformedBodyError, read_body

_PROBLEM = {PROBLEM_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
_HOLDS: dict[int | str, dict[str, Any]] = {
    400: {"description": "The body is no JSON.", "content": _PROBLEM},
    408: {"description": "The body did not arrive in time.", "content": _PROBLEM},
    413: {"description": "The body is larger than 1 MiB.", "content": _PROBLEM},
} | TURNED_AWAY
_TAKES_MERGE = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": MergeBody.model_json_schema()}},
    }
}
_FINDS: dict[int | str, dict[str, Any]] = {
    404: {"description": "There is no such receipt.", "content": _PROBLEM}
}


def user_router(publisher: GroupPublisher, admission: Admission, book: ReceiptBook) -> APIRouter:
    """The routes. An order is answered once the bus holds it; the stores carry it out after."""
    routes = APIRouter(prefix="/v1")
    _add_orders(routes, publisher, admission, book)
    _add_receipts(routes, book)
    return routes


def _add_orders(
    routes: APIRouter, publisher: GroupPublisher, admission: Admission, book: ReceiptBook
) -> None:
    @routes.delete("/users/{user_id:id}", status_code=202, response_model=Receipt, responses=_HOLDS)
    async def delete_user(user_id: PathId) -> Response:
        """Erase the reader everywhere. Whoever comes back under this id is somebody new."""
        return await order(user_id, ChangeKind.ERASE)

    @routes.post(
        "/users/{user_id:id}:merge",
        status_code=202,
        response_model=Receipt,
        responses=_HOLDS,
        openapi_extra=_TAKES_MERGE,
    )
    async def merge_user(user_id: PathId, request: Request) -> Response:
        """Give what this reader did until now to another; nothing of it is left under this id."""
        try:
            into = read_body(await request.body(), MergeBody).into
        except (MalformedBodyError, InvalidBodyError) as error:
            return refusal(error)
        if into == user_id:
            detail = "into: is the same reader"
            return problem(422, "Invalid body", detail, "name another reader", "into")
        return await order(user_id, ChangeKind.MERGE, into)

    async def order(user_id: str, kind: ChangeKind, into: str | None = None) -> Response:
        change = UserChange(
            change_id=uuid.uuid4().hex,
            kind=kind,
            user_id=user_id,
            into=into,
            accepted_at=datetime.now(UTC),
        )
        value = change.model_dump_json().encode()
        records = {USER_CHANGES.name: [Outgoing(user_id, value)]}
        if kind is ChangeKind.ERASE:
            # First, so that no profile which is published after the order is withdrawn.
            records = {USERS.name: [Outgoing(user_id, None)]} | records
        with admission.room_for(0):
            await publisher.hold(records)
        return _answer(book.add(change), 202)


def _add_receipts(routes: APIRouter, book: ReceiptBook) -> None:
    @routes.get("/users/{user_id:id}/erasure", response_model=Receipt, responses=_FINDS)
    async def get_erasure(user_id: PathId) -> Response:
        """What every store has done about the reader's last erasure."""
        return _answer(book.last_erasure(user_id))

    @routes.get("/receipts/{receipt_id:id}", response_model=Receipt, responses=_FINDS)
    async def get_receipt(receipt_id: PathId) -> Response:
        """What every store has done about an order, by the id it was answered with."""
        return _answer(book.by_id(receipt_id))


def _answer(receipt: Receipt | None, status: int = 200) -> Response:
    if receipt is None:
        detail = "no order with this id was given, or the intake has not read it yet"
        return problem(404, "No such receipt", detail, "check the id, or ask again in a moment")
    return Response(receipt.model_dump_json(), status_code=status, media_type="application/json")
