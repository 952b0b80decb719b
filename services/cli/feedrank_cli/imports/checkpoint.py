"""How far the import of one file came, so that a run that was killed is continued."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Self

import xxhash
from feedrank_core.contracts.base import Message
from feedrank_core.runtime.atomic import write_atomically
from pydantic import ValidationError


class Checkpoint(Message):
    """The last row that was dealt with, the rows kept by topic, and whether the file is through."""

    end: int = 0
    kept: dict[str, int] = {}
    through: bool = False

    @classmethod
    def read(cls, path: Path) -> Self:
        """What an earlier run left, or the beginning."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except (FileNotFoundError, ValidationError):
            return cls()

    def after(self, end: int, kept: Counter[str]) -> Self:
        """One piece further."""
        return self.model_copy(update={"end": end, "kept": dict(Counter(self.kept) + kept)})

    def write(self, path: Path) -> None:
        """Keep it. Raises: OSError."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, self.model_dump_json().encode())


def identity(path: Path, *how: str) -> str:
    """What makes a second import of the same content in the same way a no-op: xxh3_64 of both."""
    state = xxhash.xxh3_64()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            state.update(block)
    for text in how:
        state.update(b"\0" + text.encode())
    return state.hexdigest()
