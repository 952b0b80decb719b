"""The port to nearest-neighbour engines."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np


class Index(Protocol):
    """Finds the items of largest dot product. Row numbers are the bundle's dense indices."""

    kind: str

    @property
    def tuning(self) -> dict[str, Any]:
        """What it was built with: JSON values that `load` takes back."""
        ...

    def save(self, folder: Path) -> None:
        """Write the engine's files below `folder`; item vectors are saved by the caller."""
        ...

    def search(self, query_BD: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The best `k` of each query, best first.

        Shapes: (B, K) int32, -1 where nothing was found, and (B, K) float32; K = min(k, items).
        """
        ...
