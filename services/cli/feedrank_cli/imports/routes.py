"""Where imported rows go: straight to the lake, or through the public intake."""

from __future__ import annotations

import time
from typing import Any, Protocol

import httpx
from feedrank_core.contracts.api import MAX_BATCH, MAX_BODY_BYTES, BatchResult
from feedrank_core.runtime.lake import Lake, LakeError
from pydantic_core import to_json

from feedrank_cli.errors import CommandError
from feedrank_cli.imports.checkpoint import Checkpoint
from feedrank_cli.imports.contract_rows import Batch, Sorted, for_intake, for_lake
from feedrank_cli.imports.mapping import Mapping
from feedrank_cli.imports.pieces import Piece, Refusal
from feedrank_cli.invocation import invocation
from feedrank_cli.settings import Settings

_NOT_LOOKED_AT = (408, 429)
"""Says nothing of the rows: the server was too slow to read them, or had no room."""


class Route(Protocol):
    """Keeps rows of a file, each once, however often the file is imported."""

    def sort(
        self, piece: Piece, topic: str | None, mapping: Mapping | None, identity: str
    ) -> Sorted:
        """A piece's rows as this route takes them."""
        ...

    def holds(self, checkpoint: Checkpoint, identity: str) -> bool:
        """Whether what a checkpoint counts as kept is there still."""
        ...

    def keep(self, batch: Batch, identity: str, *, end: int) -> tuple[int, list[Refusal]]:
        """Keep rows up to row `end` of the file: how many are new, and which are refused.

        Raises: CommandError where nothing can be kept now.
        """
        ...

    def close(self) -> None:
        """Release connections."""
        ...


class LakeRoute:
    """Rows and the position they reach are one commit of the lake, so a kill loses neither."""

    def __init__(self, settings: Settings) -> None:
        self._lake = Lake(settings.place.lake)

    def sort(
        self, piece: Piece, topic: str | None, mapping: Mapping | None, identity: str
    ) -> Sorted:
        """Rows that hold their contract."""
        return for_lake(piece, topic, mapping, identity)

    def holds(self, checkpoint: Checkpoint, identity: str) -> bool:
        """Whether the lake knows the file, for every topic that it was counted for."""
        return all(
            self._reached(topic, identity) for topic, kept in checkpoint.kept.items() if kept
        )

    def keep(self, batch: Batch, identity: str, *, end: int) -> tuple[int, list[Refusal]]:
        """Append what is behind the position that the file reached before."""
        fresh = batch.number_N > self._reached(batch.topic, identity)
        if not fresh.any():
            return 0, []
        rows: Any = batch.rows
        if not fresh.all():
            rows = rows.filter(fresh) if hasattr(rows, "filter") else _chosen(rows, fresh)
        try:
            app_id = self._app_id(batch.topic, identity)
            return self._lake.append(batch.topic, rows, app_id=app_id, offset=end), []
        except (ValueError, LakeError) as error:
            raise CommandError(str(error), "Import again: it goes on where it stopped.") from error

    def close(self) -> None:
        """Nothing is open between two calls."""

    def _reached(self, topic: str, identity: str) -> int:
        return self._lake.transaction_offset(topic, self._app_id(topic, identity)) or 0

    @staticmethod
    def _app_id(topic: str, identity: str) -> str:
        return f"import/{topic}/{identity}"


class IntakeRoute:
    """Batches to the HTTP intake. One sent twice by a killed run counts once, by its event ids."""

    PATHS = {
        "impressions": ("events", "/v1/events"),
        "interactions": ("events", "/v1/events"),
        "items": ("items", "/v1/items:batch"),
        "users": ("users", "/v1/users:batch"),
    }
    BODY_BYTES = int(MAX_BODY_BYTES * 0.9)
    PATIENCE_S = 300.0
    """How long an intake that asks to wait (429, 503) is waited for before it is an error."""

    def __init__(self, settings: Settings) -> None:
        self._base = f"http://{settings.host}:{settings.ingestion_port}"
        self._client = httpx.Client(timeout=60, trust_env=False)

    def sort(
        self, piece: Piece, topic: str | None, mapping: Mapping | None, identity: str
    ) -> Sorted:
        """Rows as a client sends them."""
        return for_intake(piece, topic, mapping, identity)

    def holds(self, checkpoint: Checkpoint, identity: str) -> bool:
        """The intake cannot be asked; what it took is on the bus."""
        return True

    def keep(self, batch: Batch, identity: str, *, end: int) -> tuple[int, list[Refusal]]:
        """Send the rows, as many at once as a body holds."""
        if batch.topic not in self.PATHS:
            reason = f"the intake takes no {batch.topic}; use --to lake"
            return 0, [_refused(batch, i, reason) for i in range(len(batch.number_N))]
        kept, refusals = 0, []
        for first, last in _bodies(batch.rows, self.BODY_BYTES):
            accepted, refused = self._send(batch, first, last)
            kept += accepted
            refusals += refused
        return kept, refusals

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _send(self, batch: Batch, first: int, last: int) -> tuple[int, list[Refusal]]:
        name, path = self.PATHS[batch.topic]
        answer = self._post(path, to_json({name: batch.rows[first:last]}))  # pyright: ignore[reportArgumentType]
        if answer.status_code >= 500 or answer.status_code in _NOT_LOOKED_AT:
            raise CommandError(
                f"The intake answered {answer.status_code}: {answer.text[:300]}",
                f"Look at `{invocation()} logs ingestion`, then import again: it goes on.",
            )
        if answer.status_code >= 400:
            return 0, [_refused(batch, i, answer.text[:300]) for i in range(first, last)]
        result = BatchResult.model_validate_json(answer.content)
        refused = [_refused(batch, first + r.index, r.reason) for r in result.rejected]
        return result.accepted, refused

    def _post(self, path: str, body: bytes) -> httpx.Response:
        """The answer, once the intake does not ask to wait any more."""
        waited_s = 0.0
        while True:
            try:
                answer = self._client.post(
                    self._base + path, content=body, headers={"content-type": "application/json"}
                )
            except httpx.HTTPError as error:
                raise CommandError(
                    f"The intake at {self._base} does not answer: {error}.",
                    f"Start it with: {invocation()} up. Then import again: it goes on from there.",
                ) from error
            pause_s = _retry_after_s(answer)
            if pause_s is None or waited_s >= self.PATIENCE_S:
                return answer
            time.sleep(pause_s)
            waited_s += pause_s


def _retry_after_s(answer: httpx.Response) -> float | None:
    """How long a full intake asks to wait, None where it does not."""
    if answer.status_code not in (429, 503):
        return None
    text = answer.headers.get("retry-after", "")
    if answer.status_code == 503 and not text:
        return None
    return float(text) if text.isdecimal() and text != "0" else 1.0


def _bodies(rows: Any, limit_bytes: int) -> list[tuple[int, int]]:
    """Ranges of rows that fit in a body."""
    ranges, first, size = [], 0, 0
    for index, row in enumerate(rows):
        row_bytes = len(to_json(row)) + 1
        if index > first and (index - first == MAX_BATCH or size + row_bytes > limit_bytes):
            ranges.append((first, index))
            first, size = index, 0
        size += row_bytes
    return [*ranges, (first, len(rows))] if len(rows) > first else ranges


def _refused(batch: Batch, index: int, reason: str) -> Refusal:
    text = to_json(batch.rows[index]).decode()[:2000]  # pyright: ignore[reportArgumentType]
    return Refusal(int(batch.number_N[index]), reason, text)


def _chosen(rows: list[dict[str, Any]], fresh: Any) -> list[dict[str, Any]]:
    return [row for row, keep in zip(rows, fresh, strict=True) if keep]
