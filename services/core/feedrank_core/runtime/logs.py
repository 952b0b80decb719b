"""Logs: one JSON object a line on stderr, from structlog and from libraries alike."""

from __future__ import annotations

import logging
import re
import sys
from typing import Any

import orjson
import structlog

_SECRET_NAME = re.compile(r"authorization|password|passwd|secret|token|api_?key|cookie", re.I)
_URL_PASSWORD = re.compile(r"(\w+://[^\s/:@]*):[^\s/@]+@")
_BEARER = re.compile(r"(?i)\bbearer\s+\S+")
HIDDEN = "***"
_CHATTY = ("kafka",)
"""Libraries that say each step, and each failed one many times a second. What it means for us is
raised, and logged by whoever asked."""

_SHARED: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,
]


def configure(service: str, *, level: str = "INFO") -> None:
    """Every later log line of this process is JSON on stderr and names the service."""

    def add_service(_logger: Any, _method: str, event: dict[str, Any]) -> dict[str, Any]:
        event["service"] = service
        return event

    shared = [*_SHARED, add_service, hide_secrets]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(serializer=_dump),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.CRITICAL)


def hide_secrets(_logger: Any, _method: str, event: dict[str, Any]) -> dict[str, Any]:
    """Replace values whose name says secret, passwords inside URLs, and bearer keys."""
    for name, value in event.items():
        if _SECRET_NAME.search(name):
            event[name] = HIDDEN
        elif isinstance(value, str):
            event[name] = _BEARER.sub(HIDDEN, _URL_PASSWORD.sub(rf"\1:{HIDDEN}@", value))
    return event


def _dump(event: dict[str, Any], **_: Any) -> str:
    return orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
