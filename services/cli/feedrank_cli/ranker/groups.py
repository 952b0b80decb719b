"""Items by what they share: category, first tag, creator and type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from feedrank_core.features.ranking import AFFINITIES

COLUMN_OF = {"category": "category", "creator": "creator_id", "item_type": "item_type"}


def groups_of(columns: Mapping[str, Sequence[Any] | np.ndarray]) -> dict[str, np.ndarray]:
    """Each item's number in every grouping of AFFINITIES, -1 for none. Shapes: (N,) int64."""
    num_items = len(columns["item_id"])
    tags = [words[0] if words else None for words in columns.get("tags", ())]
    named = {name: columns.get(column) for name, column in COLUMN_OF.items()} | {
        "tag": tags or None
    }
    return {name: _numbered(named[name], num_items) for name in AFFINITIES}


def _numbered(values: Sequence[Any] | np.ndarray | None, num_items: int) -> np.ndarray:
    if values is None:
        return np.full(num_items, -1)
    codes = pa.array(values, pa.string()).dictionary_encode().indices
    return codes.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
