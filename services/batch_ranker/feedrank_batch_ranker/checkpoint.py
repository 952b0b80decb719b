"""How far a run has come: which chunk of users is written, for which bundle and table."""

from __future__ import annotations

from pathlib import Path

import orjson
from feedrank_core.contracts.base import Message
from feedrank_core.runtime.atomic import write_atomically

FILE = "rank.json"


class Checkpoint(Message):
    """Chunks before `chunks_written` are in the cache. Valid for one identity only."""

    bundle_id: str
    users_sha256: str
    chunk_users: int
    num_candidates: int
    chunks_written: int = 0
    candidates: int = 0

    def continued(self, run: Path) -> Checkpoint:
        """What the run folder says when it is about the same work, else this fresh one."""
        try:
            found = Checkpoint.model_validate_json((run / FILE).read_bytes())
        except (FileNotFoundError, ValueError):
            return self
        fresh = {"chunks_written": 0, "candidates": 0}
        return found if found.model_copy(update=fresh) == self else self

    def save(self, run: Path) -> None:
        """Atomically, so that a crash keeps the old or the new."""
        write_atomically(run / FILE, orjson.dumps(self.model_dump()))
