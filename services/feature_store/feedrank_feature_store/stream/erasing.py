"""Takes a reader out of the state, or one reader into another."""

from __future__ import annotations

from feedrank_core.contracts.features import HISTORY_LENGTH, SEEN_LENGTH
from feedrank_core.contracts.redis_keys import FOLLOWED_LENGTH

from feedrank_feature_store.stream import histories, key_lists
from feedrank_feature_store.stream.counting import NEVER_US, merged
from feedrank_feature_store.stream.outbox import Changed
from feedrank_feature_store.stream.profile_state import newest, unpack_profile
from feedrank_feature_store.stream.showing import NOTHING_COUNTED
from feedrank_feature_store.stream.state import State, user_key


def erase(state: State, user_id: str) -> None:
    """Hold nothing of a reader.

    What they did stays in the counters of items, as a sum that names nobody. The caller saves the
    state and then has the online store forget them; what still comes of theirs is refused by the
    lake's tombstones. Doing it again changes nothing.
    """
    _drop(state, user_id)
    state.parked.rename(state.reader, user_id, None)
    state.merges.forget(state.reader, user_id)


def merge(state: State, from_user: str, into_user: str, at_us: int) -> None:
    """One reader counts as having done what both did; the first is held no more.

    The profile is that of the second, where they said anything of themselves, else the latest of
    what the first said and both inherited. What `from_user` does later is folded as another
    reader's, what comes late from before as the second's. Doing it again changes nothing, since
    nothing is left of `from_user`.
    """
    source, target, reader = user_key(from_user), user_key(into_user), state.reader
    if source == target:
        return
    counters, counted_us, _ = state.users.find(reader, source) or NOTHING_COUNTED
    held, held_us, _ = state.users.find(reader, target) or NOTHING_COUNTED
    if max(counted_us, held_us) != NEVER_US:
        both, both_us = merged(held, held_us, counters, counted_us)
        state.users.put(reader, target, into_user, both, both_us)
        _merge_parts(state, source, target)
    profile = unpack_profile(state.profiles.get(reader, source))
    if profile is not None:
        packed = newest(state.profiles.get(reader, target), profile.left_to(into_user))
        if packed is not None:
            state.profiles.put(target, packed)
    _drop(state, from_user)
    state.parked.rename(reader, from_user, into_user)
    state.merges.add(from_user, into_user, at_us)
    state.waiting_users.mark(target, at_us, Changed.ALL)


def _merge_parts(state: State, source: bytes, target: bytes) -> None:
    reader = state.reader
    actions = histories.unpack(state.histories.get(reader, source))
    history = state.histories.get(reader, target)
    both = histories.extend(history, actions, limit=HISTORY_LENGTH)
    state.histories.put(reader, target, both)
    for part, limit in (
        (state.seen, SEEN_LENGTH),
        (state.hidden, SEEN_LENGTH),
        (state.followed, FOLLOWED_LENGTH),
    ):
        # What the known reader did last stays newest.
        keys = key_lists.merge(part.get(reader, source), part.get(reader, target), limit=limit)
        part.put(reader, target, keys)


def _drop(state: State, user_id: str) -> None:
    key = user_key(user_id)
    state.users.remove(state.reader, key)
    state.profiles.put(key, b"")
    state.waiting_users.forget(key)
