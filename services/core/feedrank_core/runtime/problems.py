"""How a service words what it cannot do: RFC 9457 bodies, and the answer of `/readyz`."""

from __future__ import annotations

from feedrank_core.contracts.api import Problem

PROBLEM_TYPE = "application/problem+json"
MAX_DETAIL_CHARACTERS = 500


def problem_body(
    status: int, title: str, detail: str, remedy: str | None = None, field: str | None = None
) -> bytes:
    """A problem as it is sent; long texts are cut, and what is no UTF-8 is replaced."""
    said = Problem(
        title=title,
        status=status,
        detail=sendable(detail),
        remedy=remedy,
        field=None if field is None else sendable(field),
    )
    return said.model_dump_json(exclude_none=True).encode()


def readiness(reason: str | None) -> tuple[int, str, bytes]:
    """Status, media type and body of `/readyz`; `reason` says why a service cannot work."""
    if reason is None:
        return 200, "application/json", b'{"status":"ready"}'
    remedy = "wait, or look at what the reason names"
    return 503, PROBLEM_TYPE, problem_body(503, "Not ready", reason, remedy)


def sendable(text: str) -> str:
    """The text as a body can hold it."""
    clean = text.encode("utf-8", "replace").decode()
    return clean if len(clean) <= MAX_DETAIL_CHARACTERS else clean[:MAX_DETAIL_CHARACTERS] + "..."
