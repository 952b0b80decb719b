"""Times inside the simulator are Unix seconds, so that they can be arrays."""

from __future__ import annotations

from datetime import datetime

import numpy as np

DAY_S = 86_400.0
Times = np.ndarray | float | datetime
"""Unix seconds, or one aware instant."""


def seconds(at: Times) -> np.ndarray:
    """Unix seconds as an array of any shape."""
    return np.asarray(at.timestamp() if isinstance(at, datetime) else at, dtype=np.float64)
