"""faiss: where ScaNN has no wheel. Inverted lists, 4-bit product codes, exact refinement."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import faiss
import numpy as np

PROBED = 0.15
"""Share of lists that a query visits."""
REFINE = 4
TRAINING_POINTS_PER_LIST = 39
"""faiss warns below this many."""
FILE = "ivfpq.faiss"


class FaissIndex:
    """Approximate; about four times slower than ScaNN at a lower recall (docs/measurements.md)."""

    kind = "faiss"

    def __init__(self, index: Any, tuning: dict[str, Any]) -> None:
        self._index = index
        self._tuning = tuning
        faiss.extract_index_ivf(index.base_index).nprobe = tuning["probed"]
        index.k_factor = REFINE

    @property
    def tuning(self) -> dict[str, Any]:
        """Number of items and lists, and lists probed."""
        return self._tuning

    @classmethod
    def build(cls, vector_ND: np.ndarray) -> FaissIndex:
        """About 4 sqrt(N) lists, fewer where training points would not suffice."""
        num_items, dim = vector_ND.shape
        lists = max(1, min(round(4 * math.sqrt(num_items)), num_items // TRAINING_POINTS_PER_LIST))
        index = faiss.index_factory(
            dim, f"IVF{lists},PQ{dim // 2}x4fs,RFlat", faiss.METRIC_INNER_PRODUCT
        )
        vectors = np.ascontiguousarray(vector_ND, np.float32)
        index.train(vectors)
        index.add(vectors)
        probed = max(1, math.ceil(lists * PROBED))
        return cls(index, {"num_items": num_items, "lists": lists, "probed": probed})

    @classmethod
    def load(cls, folder: Path, vector_ND: np.ndarray, tuning: dict[str, Any]) -> FaissIndex:
        """Reads its own copy of the vectors."""
        return cls(faiss.read_index(str(folder / FILE)), tuning)

    def save(self, folder: Path) -> None:
        """One file."""
        folder.mkdir(parents=True, exist_ok=True)
        faiss.write_index(self._index, str(folder / FILE))

    def search(self, query_BD: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """As the port says."""
        k = min(k, self._tuning["num_items"])
        score_BK, index_BK = self._index.search(np.ascontiguousarray(query_BD, np.float32), k)
        return index_BK.astype(np.int32), score_BK
