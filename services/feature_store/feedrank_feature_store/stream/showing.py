"""Readers and items as the state holds them now, and the features that they add up to.

`gather` copies what it needs and is quick, so that folding waits little for it; what is computed
from the copy needs the state no longer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from feedrank_core.contracts.features import (
    AFFINITY_COLUMNS,
    COUNTER_COLUMNS,
    RATES,
    USER_PROFILE_COLUMNS,
    Counter,
    HalfLife,
    Priors,
    column,
)
from feedrank_core.contracts.signals import ItemStats
from feedrank_core.features.affinity import largest_shares
from feedrank_core.features.quality import popularity, quality, rate

from feedrank_feature_store.stream.catalogue_state import ItemState, key_bytes, unpack_item
from feedrank_feature_store.stream.counting import NEVER_US, NUM_COLUMNS, US_PER_S, decayed
from feedrank_feature_store.stream.histories import ACTIONS, Action, unpack
from feedrank_feature_store.stream.key_lists import KEY_BYTES
from feedrank_feature_store.stream.outbox import Changed
from feedrank_feature_store.stream.profile_state import Profile, unpack_profile
from feedrank_feature_store.stream.state import State

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_INDEX = {name: n for n, name in enumerate(COUNTER_COLUMNS)}
NOTHING_COUNTED = (np.zeros(NUM_COLUMNS), NEVER_US, "")
"""The counters of whom nothing happened to."""
Items = Mapping[int, ItemState | None]


@dataclass(frozen=True)
class ReaderView:
    """A reader. Shapes: `counters` (columns,), as of `counted_at_us`; lists of keys packed."""

    user_id: str
    what: Changed
    since_us: int
    counters: np.ndarray
    counted_at_us: int
    history: list[Action]
    profile: Profile | None
    seen: bytes
    hidden: bytes
    followed: tuple[str, ...]

    @property
    def is_counted(self) -> bool:
        """Whether the reader ever did anything."""
        return self.counted_at_us != NEVER_US


@dataclass(frozen=True)
class ItemView:
    """An item. Shapes: `counters` (columns,), as of `counted_at_us`."""

    item_id: str
    item_key: int
    counters: np.ndarray
    counted_at_us: int
    item: ItemState | None


def gather(
    state: State, marks: Mapping[bytes, tuple[int, int]]
) -> tuple[list[ReaderView], dict[int, ItemState | None]]:
    """The marked readers, and the items of their histories; those no more are left out."""
    reader = state.reader
    for table in (state.users, state.profiles):
        table.load(reader, marks)
    views = []
    items: dict[int, ItemState | None] = {}
    for key, (since_us, what) in marks.items():
        found = state.users.find(reader, key)
        profile = unpack_profile(state.profiles.get(reader, key))
        if found is None and profile is None:
            continue
        counters, at_us, user_id = found or NOTHING_COUNTED
        user_id = user_id or (profile.user_id if profile else "")
        history = unpack(state.histories.get(reader, key))
        for action in history:
            if action.item_key not in items:
                items[action.item_key] = find_item(state, key_bytes(action.item_key))
        views.append(
            ReaderView(
                user_id,
                Changed(what),
                since_us,
                counters,
                at_us,
                history,
                profile,
                state.seen.get(reader, key),
                state.hidden.get(reader, key),
                _creators(state, state.followed.get(reader, key)),
            )
        )
    return views, items


def gather_items(state: State, keys: list[bytes]) -> list[ItemView]:
    """These items, those that anything happened to."""
    views = []
    for key in keys:
        found = state.items.find(state.reader, key)
        if found is not None:
            counters, at_us, item_id = found
            number = int.from_bytes(key, "little", signed=True)
            views.append(ItemView(item_id, number, counters, at_us, find_item(state, key)))
    return views


def find_item(state: State, key: bytes) -> ItemState | None:
    """What is known of an item by its key."""
    return unpack_item(state.catalogue.get(state.reader, key))


def moment(at_us: int) -> datetime:
    """The instant, exactly. Units: microseconds since 1970."""
    return _EPOCH + timedelta(microseconds=at_us)


def history_features(view: ReaderView, items: Items, priors: Priors) -> dict[str, Any]:
    """The columns of HISTORY_COLUMNS, AFFINITY_COLUMNS and RATES."""
    features: dict[str, Any] = {
        "hist_item_key": [a.item_key for a in view.history],
        "hist_action": [ACTIONS[a.code] for a in view.history],
        "hist_at": [moment(a.at_us) for a in view.history],
    }
    for of, (names, shares) in AFFINITY_COLUMNS.items():
        named = [(a.at_us / US_PER_S, _published(items.get(a.item_key), of)) for a in view.history]
        largest = largest_shares(named)
        features[names] = [name for name, _ in largest]
        features[shares] = [share for _, share in largest]
    impressions = float(view.counters[_INDEX[column(Counter.IMPRESSIONS, HalfLife.FOREVER)]])
    for name, counter in RATES.items():
        count = float(view.counters[_INDEX[column(counter, HalfLife.FOREVER)]])
        features[name] = rate(count, impressions, getattr(priors, name))
    return features


def profile_features(view: ReaderView) -> dict[str, Any]:
    """The columns of USER_PROFILE_COLUMNS; unknown for a reader whom nobody described."""
    profile = view.profile or Profile(view.user_id)
    features: dict[str, Any] = {name: getattr(profile, name) for name in USER_PROFILE_COLUMNS}
    return features | {"interests": list(profile.interests)}


def counter_features(view: ReaderView) -> dict[str, Any]:
    """The state after the last event, and when that was."""
    counters = dict(zip(COUNTER_COLUMNS, view.counters.tolist(), strict=True))
    return counters | {"counted_at_us": view.counted_at_us}


def counters_at(counters: np.ndarray, counted_at_us: int, as_of_us: int) -> dict[str, float]:
    """Every counter as it stands at an instant that is not before the state's."""
    if counted_at_us == NEVER_US:
        return dict.fromkeys(COUNTER_COLUMNS, 0.0)
    aged = decayed(counters[None], np.array([as_of_us - counted_at_us]))[0]
    return dict(zip(COUNTER_COLUMNS, aged.tolist(), strict=True))


def item_statistics(view: ItemView, as_of_us: int, priors: Priors) -> tuple[dict, float, float]:
    """Counters, popularity and quality of an item at an instant."""
    counters = counters_at(view.counters, view.counted_at_us, as_of_us)
    counts = {c: counters[column(c, HalfLife.FOREVER)] for c in Counter}
    week, forever = (
        counters[column(Counter.ENGAGEMENTS, h)] for h in (HalfLife.WEEK, HalfLife.FOREVER)
    )
    return counters, popularity(week, forever), quality(counts, priors.mean_value)


def item_stats(view: ItemView, as_of: datetime, priors: Priors) -> ItemStats:
    """The message that tells other services; counters of 0 are left out."""
    as_of_us = max((as_of - _EPOCH) // timedelta(microseconds=1), view.counted_at_us)
    counters, popular, good = item_statistics(view, as_of_us, priors)
    return ItemStats(
        item_id=view.item_id,
        counters={name: value for name, value in counters.items() if value},
        popularity=popular,
        quality=min(good, 1.0),
        computed_at=moment(as_of_us),
    )


def _creators(state: State, packed: bytes) -> tuple[str, ...]:
    """The creators of followed items, each once at its last place."""
    creators: dict[str, None] = {}
    for start in range(0, len(packed), KEY_BYTES):
        item = find_item(state, packed[start : start + KEY_BYTES])
        if item is not None and item.is_published:
            creators.pop(item.creator_id, None)
            creators[item.creator_id] = None
    return tuple(creators)


def _published(item: ItemState | None, of: str) -> str | None:
    return getattr(item, of) if item is not None and item.is_published else None
