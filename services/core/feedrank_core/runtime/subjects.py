"""Readers' ids under a keyed hash: what may be kept of a reader who was erased.

Without the key nobody can try ids against the hashes; with it, and only with it, a replayed
record is recognised. So the key lies beside the tombstones and is backed up with them.
"""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

from feedrank_core.runtime.secret_file import load_secret

KEY_FILE = "erasure.key"
_SUBJECT_BYTES = 16
"""128 bits of HMAC-SHA256, the shortest truncation RFC 2104 (section 5) recommends."""


class Subjects:
    """Hashes ids with one key."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self.key_id = hashlib.sha256(b"feedrank-erasure-key" + key).hexdigest()[:8]
        """Tells keys apart without telling them."""

    @classmethod
    def of_lake(cls, root: Path) -> Subjects:
        """With the key of the lake below `root`, made if it is not there."""
        return cls(load_secret(root / KEY_FILE))

    def of(self, user_id: str) -> str:
        """The subject of an id: 32 hexadecimal digits."""
        return hmac.digest(self._key, user_id.encode(), "sha256")[:_SUBJECT_BYTES].hex()
