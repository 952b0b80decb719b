"""Where an import puts what it read: the lake, a count of it, and a file of what was refused."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import xxhash
from feedrank_core.runtime.lake import Lake, LakeError

from feedrank_cli.errors import CommandError
from feedrank_cli.settings import Settings

CHUNK_ROWS = 100_000


def digest(path: Path) -> str:
    """What makes a second import of the same file a no-op: xxh3_64 of its bytes."""
    state = xxhash.xxh3_64()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            state.update(block)
    return state.hexdigest()


@dataclass
class Landing:
    """One import. `tell(topic, rows)` is called as rows land."""

    settings: Settings
    rejects_path: Path
    tell: Callable[[str, int], None] = lambda topic, rows: None
    landed: Counter[str] = field(default_factory=Counter)
    known: Counter[str] = field(default_factory=Counter)
    rejected: int = 0

    def to_lake(
        self, topic: str, rows: pa.Table | Sequence[Mapping[str, Any]], *, source: str, chunk: int
    ) -> None:
        """Keep chunk number `chunk` of `source` once. Raises: CommandError naming the column."""
        size = len(rows)
        if not size:
            return
        lake = Lake(self.settings.place.lake)
        try:
            kept = lake.append(topic, rows, app_id=f"import:{topic}:{source}", offset=chunk)
        except ValueError as error:
            raise CommandError(
                f"{topic}: {error}.", "Columns must be those of the contract of this topic."
            ) from error
        except LakeError as error:
            raise CommandError(str(error)) from error
        self.landed[topic] += kept
        self.known[topic] += size - kept
        self.tell(topic, size)

    def reject(self, file: Path | str, line: int, reason: str, text: str) -> None:
        """Write one refused line, with where it stands and why, to the file of rejects."""
        self.rejects_path.parent.mkdir(parents=True, exist_ok=True)
        row = {"file": str(file), "line": line, "reason": reason, "text": text[:2000]}
        with self.rejects_path.open("a") as rejects:
            rejects.write(json.dumps(row) + "\n")
        self.rejected += 1


def existing(path: Path) -> Path:
    """The path. Raises: CommandError when nothing is there."""
    if not path.exists():
        raise CommandError(f"{path} does not exist.", "Give the path of the data.", code=2)
    return path
