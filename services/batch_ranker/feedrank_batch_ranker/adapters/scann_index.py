"""ScaNN: a tree of leaves, asymmetric hashing inside them, exact scores for the best."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from scann import scann_ops_pybind

LEAVES_SEARCHED = 0.03
"""Share of leaves that a query visits; `feedrank bench batch` measures recall and speed at it."""
MIN_VISITED = 20_000
"""Items that a query visits at least: 40 for each of 500 asked for, so that a catalogue of a few
ten thousand is scanned rather than guessed at."""
DIMENSIONS_PER_CODE = 1
"""A code has four bits: 32 bytes an item. With two dimensions a code twice as many items must be
scored exactly for the same recall, which costs more than the longer codes."""
REORDER = 3
"""Items that are scored exactly, per item asked for."""
TRAINING_SAMPLE = 250_000


class ScannIndex:
    """Approximate; needs the item vectors in memory twice while it is built."""

    kind = "scann"

    def __init__(self, searcher: Any, tuning: dict[str, Any]) -> None:
        self._searcher = searcher
        self._tuning = tuning

    @property
    def tuning(self) -> dict[str, Any]:
        """Number of items and leaves, leaves searched, reorder factor."""
        return self._tuning

    @classmethod
    def build(
        cls,
        vector_ND: np.ndarray,
        *,
        leaves_searched: float = LEAVES_SEARCHED,
        reorder: float = REORDER,
    ) -> ScannIndex:
        """About 2 sqrt(N) leaves. Source: ScaNN's own advice on its algorithms page."""
        num_items = len(vector_ND)
        leaves = max(1, min(num_items, round(2 * math.sqrt(num_items))))
        share = min(1.0, max(leaves_searched, MIN_VISITED / num_items))
        tuning = {
            "num_items": num_items,
            "leaves": leaves,
            "searched": max(1, math.ceil(leaves * share)),
            "reorder": reorder,
        }
        builder: Any = scann_ops_pybind.builder(np.asarray(vector_ND), 500, "dot_product")
        sample = min(num_items, TRAINING_SAMPLE)
        builder = builder.tree(leaves, tuning["searched"], training_sample_size=sample)
        builder = builder.score_ah(
            DIMENSIONS_PER_CODE,
            anisotropic_quantization_threshold=0.2,
            training_sample_size=sample,
        )
        return cls(builder.reorder(round(500 * reorder)).build(), tuning)

    @classmethod
    def load(cls, folder: Path, vector_ND: np.ndarray, tuning: dict[str, Any]) -> ScannIndex:
        """Reads its own copy of the vectors."""
        return cls(scann_ops_pybind.load_searcher(str(folder)), tuning)

    def save(self, folder: Path) -> None:
        """Relative paths, so that a bundle may be moved."""
        folder.mkdir(parents=True, exist_ok=True)
        self._searcher.serialize(str(folder), relative_path=True)

    def search(self, query_BD: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """As the port says."""
        k = min(k, self._tuning["num_items"])
        index_BK, score_BK = self._searcher.search_batched_parallel(
            np.ascontiguousarray(query_BD, np.float32),
            final_num_neighbors=k,
            pre_reorder_num_neighbors=max(k, round(k * self._tuning["reorder"])),
            leaves_to_search=self._tuning["searched"],
        )
        missing_BK = np.isnan(score_BK)  # leaves with fewer than k items leave places empty
        index_BK = np.where(missing_BK, -1, index_BK).astype(np.int32)
        return index_BK, np.where(missing_BK, -np.inf, score_BK).astype(np.float32)
