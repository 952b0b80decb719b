"""JSON lines through the public intake: events, items or profiles, each line as a client sends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
from feedrank_core.contracts.api import MAX_BATCH, MAX_BODY_BYTES

from feedrank_cli.errors import CommandError
from feedrank_cli.imports.landing import Landing, existing

HELP = "a file of JSON lines (events, items or users), through the public intake"
ROUTES = {"events": "/v1/events", "items": "/v1/items:batch", "users": "/v1/users:batch"}
Row = tuple[int, str, dict[str, Any]]


def kind_of(row: dict[str, Any]) -> str:
    """What a line is, by the field that only its kind has."""
    if "event_type" in row:
        return "events"
    return "items" if "item_type" in row else "users"


def bring(path: Path, landing: Landing) -> None:
    """Every line, in order; what the intake refuses goes to the file of rejects."""
    pending: list[Row] = []
    kind, size = "", 0
    for number, line in enumerate(existing(path).open(encoding="utf-8", errors="replace"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            landing.reject(path, number, f"not JSON: {error}", line)
            continue
        if not isinstance(row, dict):
            landing.reject(path, number, "not a JSON object", line)
            continue
        full = len(pending) == MAX_BATCH or size + len(line.encode()) > MAX_BODY_BYTES * 0.9
        if pending and (full or kind_of(row) != kind):
            send(kind, pending, path, landing)
            pending, size = [], 0
        kind, size = kind_of(row), size + len(line.encode())
        pending.append((number, line, row))
    if pending:
        send(kind, pending, path, landing)


def send(kind: str, rows: list[Row], path: Path, landing: Landing) -> None:
    """One batch. Raises: CommandError when the intake does not take batches."""
    settings = landing.settings
    url = f"http://{settings.host}:{settings.ingestion_port}{ROUTES[kind]}"
    try:
        body = {kind: [row for _, _, row in rows]}
        answer = httpx.post(url, json=body, timeout=60, trust_env=False)
    except httpx.HTTPError as error:
        raise CommandError(
            f"The intake at {url} does not answer: {error}.", "Start it with: feedrank up"
        ) from error
    if answer.status_code >= 500:
        raise CommandError(
            f"The intake answered {answer.status_code}: {answer.text[:300]}",
            "Look at `feedrank logs ingestion`, then import again: event ids make it safe.",
        )
    if answer.status_code >= 400:
        for number, line, _ in rows:
            landing.reject(path, number, answer.text[:300], line)
        return
    result = answer.json()
    for refusal in result.get("rejected", []):
        number, line, _ = rows[refusal["index"]]
        landing.reject(path, number, refusal["reason"], line)
    landing.landed[kind] += result["accepted"]
    landing.tell(kind, result["accepted"])
