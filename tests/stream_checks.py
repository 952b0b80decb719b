"""What the stream's state must hold after a log, by the plain fold of stream_world."""

from datetime import timedelta

import numpy as np
import pytest
from feedrank_core.contracts.events import Impression, Interaction, InteractionType
from feedrank_core.contracts.features import COUNTER_COLUMNS
from feedrank_core.contracts.ids import item_key
from feedrank_core.contracts.signals import ItemStats
from feedrank_core.contracts.topics import ITEM_STATS
from feedrank_core.features.counters import value_at
from feedrank_core.runtime.bus import Bus
from feedrank_feature_store.adapters.memory_online import MemoryOnline
from feedrank_feature_store.stream import histories
from feedrank_feature_store.stream.catalogue_state import key_bytes
from feedrank_feature_store.stream.histories import ACTIONS
from feedrank_feature_store.stream.inputs import microseconds
from feedrank_feature_store.stream.state import State, user_key
from stream_world import START, Plain, as_columns, plainly

HIDING = (InteractionType.HIDE, InteractionType.REPORT)
FOLLOWING = (InteractionType.FOLLOW,)


def assert_equals(state: State, plain: Plain) -> None:
    """Counters of readers and items, and histories."""
    for table, key_of, expected in (
        (state.users, user_key, plain.users),
        (state.items, lambda item: key_bytes(item_key(item)), plain.items),
    ):
        for entity, counted in expected.items():
            found = table.find(state.reader, key_of(entity))
            assert found is not None, entity
            value, at_us, name = found
            assert name == entity
            assert counted.at is not None and at_us == microseconds(counted.at)
            assert value.tolist() == pytest.approx(as_columns(counted), rel=1e-9, abs=1e-12)
    for user, history in plain.histories.items():
        packed = state.histories.get(state.reader, user_key(user))
        found = [
            (START + timedelta(microseconds=a.at_us - microseconds(START)), a.item_key)
            for a in histories.unpack(packed)
        ]
        assert found == [(at, key) for at, key, _ in history]
        assert [ACTIONS[a.code] for a in histories.unpack(packed)] == [a for *_, a in history]


def assert_lists_equal(state: State, messages: list) -> None:
    """What each reader has seen, hidden and followed."""
    for user in {m.user_id for m in messages if isinstance(m, Impression | Interaction)}:
        key, reader = user_key(user), state.reader
        # Impressions and actions come in an order of their own.
        assert set(item_keys(state.seen.get(reader, key))) == seen_by(messages, user)
        for table, kinds in ((state.hidden, HIDING), (state.followed, FOLLOWING)):
            held = item_keys(table.get(reader, key))
            assert held == listed(messages, user, kinds)


def assert_shown(online: MemoryOnline, messages: list) -> None:
    """Counters and histories of readers, as they are read online."""
    plain = plainly(messages)
    for user, counted in plain.users.items():
        found = online.read(user)
        wanted = as_columns(counted)
        shown = [found[name] for name in COUNTER_COLUMNS]
        assert shown == pytest.approx(wanted, rel=1e-9, abs=1e-12)
        assert counted.at is not None
        assert found["counted_at_us"] == microseconds(counted.at)
        assert found["hist_item_key"] == [key for _, key, _ in plain.histories.get(user, [])]


def statistics(bus: Bus) -> dict[str, ItemStats]:
    """The last that the bus holds of each item."""
    found = {}
    for record in bus.broadcast(ITEM_STATS):
        if record is None:
            break
        found[record.key] = ItemStats.model_validate_json(record.value or b"")
    return found


def are_statistics_of(bus: Bus, messages: list) -> bool:
    """Whether `item-stats` tells of every item what the whole log adds up to."""
    found, items = statistics(bus), plainly(messages).items
    for item_id, counted in items.items():
        stats = found.get(item_id)
        if stats is None or counted.at is None or stats.computed_at < counted.at:
            return False
        wanted = {name: n for name, n in value_at(counted, stats.computed_at).items() if n}
        if stats.counters != pytest.approx(wanted, rel=1e-9, abs=1e-12):
            return False
    return True


def item_keys(packed: bytes | None) -> list[int]:
    """The keys of a packed list."""
    return np.frombuffer(packed or b"", np.int64).tolist()


def seen_by(messages: list, user: str) -> set[int]:
    """The keys of what a reader was shown or acted on."""
    events = [m for m in messages if isinstance(m, Impression | Interaction)]
    return {item_key(m.item_id) for m in events if m.user_id == user}


def listed(messages: list, user: str, kinds: tuple[InteractionType, ...]) -> list[int]:
    """The keys of what a reader did one of these to, in the order of arrival."""
    done = [m for m in messages if isinstance(m, Interaction) and m.user_id == user]
    keys = [item_key(m.item_id) for m in done if m.event_type in kinds]
    # Each once, at its last place.
    return list(dict.fromkeys(reversed(keys)))[::-1]
