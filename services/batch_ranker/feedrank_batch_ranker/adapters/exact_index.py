"""Exact search: one matrix product a block of queries, then a partial sort."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

BLOCK_BYTES = 256 << 20
"""Memory for one block of scores."""


class ExactIndex:
    """Every item is scored. Also the truth that audits compare with."""

    kind = "exact"

    def __init__(self, vector_ND: np.ndarray) -> None:
        self._vector_ND = vector_ND

    @property
    def tuning(self) -> dict[str, Any]:
        """Nothing to tune."""
        return {}

    @classmethod
    def build(cls, vector_ND: np.ndarray) -> ExactIndex:
        """Takes the vectors as they are."""
        return cls(vector_ND)

    @classmethod
    def load(cls, folder: Path, vector_ND: np.ndarray, tuning: dict[str, Any]) -> ExactIndex:
        """The vectors are the index."""
        return cls(vector_ND)

    def save(self, folder: Path) -> None:
        """Nothing beside the vectors."""

    def search(self, query_BD: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """As the port says."""
        num_items = len(self._vector_ND)
        k = min(k, num_items)
        block = max(1, BLOCK_BYTES // (4 * num_items))
        found = [
            self._search_block(query_BD[start : start + block], k)
            for start in range(0, len(query_BD), block)
        ]
        if not found:
            return np.empty((0, k), np.int32), np.empty((0, k), np.float32)
        return np.concatenate([i for i, _ in found]), np.concatenate([s for _, s in found])

    def _search_block(self, query_BD: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        score_BN = query_BD @ self._vector_ND.T
        if k < score_BN.shape[1]:
            top_BK = np.argpartition(score_BN, -k, axis=1)[:, -k:]
        else:
            top_BK = np.broadcast_to(np.arange(k), score_BN.shape)
        score_BK = np.take_along_axis(score_BN, top_BK, axis=1)
        order_BK = np.argsort(-score_BK, axis=1, kind="stable")
        return (
            np.take_along_axis(top_BK, order_BK, axis=1).astype(np.int32),
            np.take_along_axis(score_BK, order_BK, axis=1),
        )
