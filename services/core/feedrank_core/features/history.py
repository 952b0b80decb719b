"""Histories: the last actions of a reader, and the keys of what the reader has seen."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from feedrank_core.contracts.features import SEEN_LENGTH

SEEN_DTYPE = np.dtype("<i8")


def unpack_seen(packed: bytes | None) -> np.ndarray:
    """The keys of a `seen:` value, newest last; a truncated tail is dropped. Shapes: (N,) int64."""
    if not packed:
        return np.empty(0, SEEN_DTYPE)
    usable = len(packed) - len(packed) % SEEN_DTYPE.itemsize
    return np.frombuffer(packed[:usable], SEEN_DTYPE)


def pack_seen(keys: Iterable[int]) -> bytes:
    """The `seen:` value of these keys, in their order."""
    return np.fromiter(keys, SEEN_DTYPE).tobytes()


def extend_seen(
    seen: Iterable[int], newer: Iterable[int], *, limit: int = SEEN_LENGTH
) -> list[int]:
    """`seen` and then `newer`, each key once at its last place, the newest `limit` of them.

    Extending twice by the same keys is extending once: a replay changes nothing.
    """
    ordered: dict[int, None] = {}
    for key in (*seen, *newer):
        ordered.pop(key, None)
        ordered[key] = None
    return list(ordered)[-limit:]
