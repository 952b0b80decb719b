"""What may be wrong with a lake, in words for logs and probes."""

from __future__ import annotations

import re

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class LakeError(RuntimeError):
    """The lake could not be read or written; nothing of the call was kept. Names the table."""

    def __init__(self, message: str) -> None:
        # Delta's messages bring colours and lines of their own; ours go to logs and probes.
        super().__init__(" ".join(_COLOUR.sub("", message).split()))


class WrongKeyError(LakeError):
    """The tombstones were made with another key and would match nobody."""
