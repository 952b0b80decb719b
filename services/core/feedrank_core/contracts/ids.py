"""Identifiers: what a client may send, and the stable 64-bit key of an item."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import xxhash
from pydantic import StringConstraints, WithJsonSchema

MAX_ID_LENGTH = 128

# Printable means no control, format, surrogate or unassigned character and no separator
# other than the plain space; `\p{..}` classes are what pydantic's Rust regex understands.
PRINTABLE = rf"^[^\p{{C}}\p{{Zl}}\p{{Zp}}]{{1,{MAX_ID_LENGTH}}}$"

# What JSON Schema says of it: its readers' regex dialects do not agree on Unicode classes, so it
# names the control characters only and the service refuses a little more.
_PORTABLE = rf"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]{{1,{MAX_ID_LENGTH}}}$"

ExternalId = Annotated[
    str,
    StringConstraints(min_length=1, max_length=MAX_ID_LENGTH, pattern=PRINTABLE),
    WithJsonSchema(
        {"type": "string", "minLength": 1, "maxLength": MAX_ID_LENGTH, "pattern": _PORTABLE}
    ),
]


def item_key(item_id: str) -> int:
    """The item's key: xxh3_64 of the UTF-8 id, as a signed 64-bit integer.

    Signed because Delta Lake and Arrow-to-SQL paths have no unsigned integers. Stable across
    bundles; a collision inside one catalogue fails the build of its bundle.
    """
    unsigned = xxhash.xxh3_64_intdigest(item_id.encode())
    return unsigned - (1 << 64) if unsigned >= 1 << 63 else unsigned


def item_keys(item_ids: list[str]) -> np.ndarray:
    """`item_key` of each id. Shapes: (N,) int64."""
    return np.fromiter((item_key(i) for i in item_ids), dtype=np.int64, count=len(item_ids))
