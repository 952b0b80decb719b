"""Lists of item keys as packed bytes: seen, hidden and followed, newest last, each key once."""

from __future__ import annotations

from collections.abc import Iterable

KEY_BYTES = 8


def extend(packed: bytes, keys: Iterable[bytes], *, limit: int) -> bytes:
    """The list and then these keys, each once at its last place, the newest `limit` of them.

    Extending twice by the same keys is extending once: a replay changes nothing. On packed keys,
    since a search of bytes takes a microsecond where a list of numbers takes a hundred.
    """
    for key in keys:
        if packed.endswith(key):
            continue
        place = _find(packed, key)
        if place >= 0:
            packed = packed[:place] + packed[place + KEY_BYTES :]
        packed += key
    return packed[-limit * KEY_BYTES :]


def merge(first: bytes, second: bytes, *, limit: int) -> bytes:
    """Both lists as one; the keys of `second` count as the newer ones."""
    keys = [second[n : n + KEY_BYTES] for n in range(0, len(second), KEY_BYTES)]
    return extend(first, keys, limit=limit)


def _find(packed: bytes, key: bytes) -> int:
    place = packed.find(key)
    # A match across two keys is none.
    while place >= 0 and place % KEY_BYTES:
        place = packed.find(key, place + 1)
    return place
