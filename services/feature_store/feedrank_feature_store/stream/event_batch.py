"""Events as the folder counts them: with the readers and items they are of, each once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from feedrank_core.contracts.ids import item_key

from feedrank_feature_store.stream.catalogue_state import key_bytes
from feedrank_feature_store.stream.inputs import Events
from feedrank_feature_store.stream.state import user_key


@dataclass(frozen=True)
class Batch:
    """Events with the distinct readers and items they are of. Shapes: (E,) each array."""

    events: Events
    users: list[bytes]
    user_ids: list[str]
    items: list[bytes]
    item_ids: list[str]
    user_E: np.ndarray
    item_E: np.ndarray
    code_E: np.ndarray
    at_us_E: np.ndarray
    dwell_s_E: np.ndarray

    @classmethod
    def of(cls, events: Events) -> Batch:
        """The same events, indexed."""
        user_of: dict[str, int] = {}
        item_of: dict[str, int] = {}
        user_E = [user_of.setdefault(user, len(user_of)) for user in events.user_id]
        item_E = [item_of.setdefault(item, len(item_of)) for item in events.item_id]
        return cls(
            events,
            [user_key(user) for user in user_of],
            list(user_of),
            [key_bytes(item_key(item)) for item in item_of],
            list(item_of),
            np.array(user_E, np.int64),
            np.array(item_E, np.int64),
            np.array(events.code, np.int64),
            np.array(events.at_us, np.int64),
            np.array(events.dwell_s, np.float64),
        )
