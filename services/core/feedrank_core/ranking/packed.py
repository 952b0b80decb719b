"""The packed `cand:` value: n uint32 dense item indices, then n float16 scores, best first."""

from __future__ import annotations

import numpy as np

ENTRY_BYTES = 6


def pack(index_N: np.ndarray, score_N: np.ndarray) -> bytes:
    """Little-endian, without a header. Shapes: both (N,)."""
    return index_N.astype("<u4").tobytes() + score_N.astype("<f2").tobytes()


def unpack(packed: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Indices (N,) uint32 and scores (N,) float32. Raises: ValueError for a torn value."""
    count, rest = divmod(len(packed), ENTRY_BYTES)
    if rest:
        raise ValueError(f"packed candidates have {len(packed)} bytes, no multiple of 6")
    index_N = np.frombuffer(packed, dtype="<u4", count=count)
    return index_N, np.frombuffer(packed, dtype="<f2", offset=4 * count).astype(np.float32)
