"""The file of rows that could not be used: where each stands, why, and what it looks like."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from feedrank_core.runtime.atomic import replacing

from feedrank_cli.imports.pieces import Refusal


class Rejects:
    """JSON lines of `file`, `line`, `reason` and `text`; there is no file where there are none.

    Opened with the row of each file behind which this run begins: what an earlier run, which was
    killed, said of rows behind it is said again, so no row stands there twice.
    """

    def __init__(self, path: Path, starts: Mapping[Path, int]) -> None:
        self.path = path
        self.count = 0
        self.first: dict[str, Any] | None = None
        if path.exists():
            self._keep(starts)

    def add(self, file: Path, refusals: Iterable[Refusal]) -> None:
        """Write them down. Raises: OSError."""
        rows = [
            {"file": str(file), "line": r.number, "reason": r.reason, "text": r.text}
            for r in sorted(refusals, key=lambda refusal: refusal.number)
        ]
        if not rows:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as out:
            out.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        self._tell(rows)

    def _tell(self, rows: list[dict[str, Any]]) -> None:
        self.count += len(rows)
        self.first = self.first or (rows[0] if rows else None)

    def _keep(self, starts: Mapping[Path, int]) -> None:
        begins = {str(file): start for file, start in starts.items()}
        with (
            replacing(self.path) as unfinished,
            self.path.open(encoding="utf-8") as old,
            unfinished.open("w", encoding="utf-8") as new,
        ):
            for line in old:
                row = _complete(line)
                if row is not None and row["line"] <= begins.get(row["file"], 0):
                    new.write(line)
                    self._tell([row])
        if not self.count:
            self.path.unlink()


def _complete(line: str) -> dict[str, Any] | None:
    """A row, or None of a line that a kill cut."""
    try:
        return json.loads(line)
    except ValueError:
        return None
