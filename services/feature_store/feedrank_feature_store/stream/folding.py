"""Folds what was read of the log into the state, each event once (decision 7)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from feedrank_core.contracts.events import InteractionType
from feedrank_core.contracts.features import SEEN_LENGTH, Counter
from feedrank_core.contracts.ids import item_key
from feedrank_core.contracts.redis_keys import FOLLOWED_LENGTH, TRENDING_EVERYONE

from feedrank_feature_store.stream import histories, key_lists
from feedrank_feature_store.stream.catalogue_state import (
    SHORTEST_LONG_VIEW_S,
    ItemState,
    ItemVersion,
    engages,
    key_bytes,
    key_number,
    may_engage_later,
    pack_item,
    unpack_item,
    with_version,
)
from feedrank_feature_store.stream.counting import (
    COUNTER_INDEX,
    NEVER_US,
    US_PER_S,
    Moves,
    fold,
)
from feedrank_feature_store.stream.event_batch import Batch
from feedrank_feature_store.stream.histories import ACTION_CODE, ACTIONS, Action
from feedrank_feature_store.stream.inputs import COUNTER_OF_CODE, ENGAGES, Events, Inputs
from feedrank_feature_store.stream.outbox import Changed, Outbox
from feedrank_feature_store.stream.profile_state import Profile, newest, unpack_profile
from feedrank_feature_store.stream.remembered import ParkedView, event_hash
from feedrank_feature_store.stream.state import State, user_key
from feedrank_feature_store.stream.tables import CounterTable

_VIEW = ACTION_CODE[InteractionType.VIEW]
_HIDING = (ACTION_CODE[InteractionType.HIDE], ACTION_CODE[InteractionType.REPORT])
_FOLLOW = ACTION_CODE[InteractionType.FOLLOW]


class Engagement(NamedTuple):
    """An action that engaged its reader."""

    user: bytes
    item: bytes
    action: Action


class Folder:
    """Folds into one state. What changes is marked in its outboxes, unless told not to.

    `from_lake`: what is folded has the reader whose it is by now, whoever did it.
    """

    def __init__(
        self,
        state: State,
        *,
        mark_readers: bool = True,
        mark_items: bool = True,
        from_lake: bool = False,
    ) -> None:
        self._state, self._from_lake = state, from_lake
        self._mark_readers, self._mark_items = mark_readers, mark_items

    def fold(self, inputs: Inputs, *, check_ids: bool = True) -> int:
        """Fold one read of the log; how many events were new.

        `check_ids` False: the events are known to be the first of their ids.
        """
        self._publish(inputs.versions)
        for profile in inputs.profiles:
            self._take_profile(profile)
        events = self._admitted(inputs.events, check_ids)
        if events:
            self._count(Batch.of(events))
        return len(events)

    def _admitted(self, events: Events, check_ids: bool) -> Events:
        """The events that were not folded before and whose reader was not erased since."""
        state = self._state
        rows = list(range(len(events)))
        covers = state.erased.covers
        rows = [n for n in rows if not covers(events.user_id[n], events.at_us[n])]
        if check_ids:
            ids = [event_hash(events.topic(n), events.event_id[n]) for n in rows]
            first = state.event_ids.first_of_each(state.reader, ids)
            rows = [n for n, is_first in zip(rows, first, strict=True) if is_first]
        admitted = events if len(rows) == len(events) else events.take(rows)
        admitted.user_id = self._owners(admitted.user_id, admitted.at_us)
        return admitted

    def _owners(self, user_ids: list[str], at_us: list[int]) -> list[str]:
        """Whose each is by now, where a reader was merged into another since."""
        if self._from_lake:
            return user_ids
        return self._state.merges.owners(self._state.reader, user_ids, at_us)

    def _has_passed(self, profile: Profile) -> bool:
        """Whether a merge took the profile since; the lake has marked its own as inherited."""
        if self._from_lake:
            return False
        return self._state.merges.has_passed(self._state.reader, profile.user_id, profile.at_us)

    def _count(self, batch: Batch) -> None:
        engaged_E = self._engaged(batch)
        row_U = self._count_entities(batch, engaged_E)
        self._list_keys(batch, row_U)
        engagements = []
        for n in np.flatnonzero(engaged_E).tolist():
            key = batch.items[batch.item_E[n]]
            event_id = batch.events.event_id[n].encode()
            action = Action(batch.events.at_us[n], event_id, key_number(key), batch.events.code[n])
            engagements.append(Engagement(batch.users[batch.user_E[n]], key, action))
        self._remember(engagements)

    def _engaged(self, batch: Batch) -> np.ndarray:
        """Whether each event engages; views of items unknown by then are parked."""
        engaged_E = ENGAGES[batch.code_E]
        long_E = (batch.code_E == _VIEW) & (batch.dwell_s_E > SHORTEST_LONG_VIEW_S)
        state = self._state
        for n in np.flatnonzero(long_E).tolist():
            at_us, dwell_s = batch.events.at_us[n], batch.events.dwell_s[n]
            key = batch.items[batch.item_E[n]]
            item = unpack_item(state.catalogue.get(state.reader, key))
            action = ACTIONS[batch.events.code[n]]
            engaged_E[n] = engages(action, dwell_s, at_us, item)
            if may_engage_later(action, dwell_s, at_us, item):
                ids = (batch.events.user_id[n], batch.events.item_id[n], batch.events.event_id[n])
                state.parked.park(key, ParkedView(*ids, at_us, dwell_s))
        return engaged_E

    def _count_entities(self, batch: Batch, engaged_E: np.ndarray) -> np.ndarray:
        """Move the counters of readers and items; the readers' rows. Shapes: (U,) int64."""
        dwelt_E = batch.dwell_s_E != 0
        event_M = np.concatenate(
            [np.arange(len(batch.events)), np.flatnonzero(engaged_E), np.flatnonzero(dwelt_E)]
        )
        counter_M = np.concatenate(
            [
                COUNTER_OF_CODE[batch.code_E],
                np.full(engaged_E.sum(), COUNTER_INDEX[Counter.ENGAGEMENTS]),
                np.full(dwelt_E.sum(), COUNTER_INDEX[Counter.DWELL_S]),
            ]
        )
        amount_M = np.ones(len(event_M))
        amount_M[len(event_M) - dwelt_E.sum() :] = batch.dwell_s_E[dwelt_E]
        at_us_M = batch.at_us_E[event_M]
        state = self._state
        users = state.users.places(state.reader, batch.users, batch.user_ids)
        items = state.items.places(state.reader, batch.items, batch.item_ids)
        self._mark(batch, is_new_U=state.users.at_us[users] == NEVER_US)
        for table, row_M in (
            (state.users, users[batch.user_E[event_M]]),
            (state.items, items[batch.item_E[event_M]]),
        ):
            self._move(table, Moves(row_M, counter_M, amount_M, at_us_M))
        return users

    def _mark(self, batch: Batch, is_new_U: np.ndarray) -> None:
        """Who must be shown anew, and since when."""
        state = self._state
        what_U = np.full(len(batch.users), int(Changed.COUNTERS | Changed.SEEN))
        what_U[is_new_U] |= Changed.PROFILE
        for codes, changed in ((_HIDING, Changed.HIDDEN), ([_FOLLOW], Changed.FOLLOWED)):
            what_U[batch.user_E[np.isin(batch.code_E, codes)]] |= changed
        if self._mark_readers:
            what = what_U.tolist()
            _mark_each(state.waiting_users, batch.users, batch.user_E, batch.at_us_E, what)
        if self._mark_items:
            what = [int(Changed.COUNTERS)] * len(batch.items)
            _mark_each(state.waiting_items, batch.items, batch.item_E, batch.at_us_E, what)

    def _move(self, table: CounterTable, moves: Moves) -> None:
        fold(table.value, table.at_us, moves)
        table.touch(moves.row)

    def _list_keys(self, batch: Batch, row_U: np.ndarray) -> None:
        """What each reader has seen, hidden and followed, in the order of the log."""
        state = self._state
        every_E = np.arange(len(batch.events))
        hiding_E = np.flatnonzero(np.isin(batch.code_E, _HIDING))
        following_E = np.flatnonzero(batch.code_E == _FOLLOW)
        for part, events, limit in (
            (state.seen, every_E, SEEN_LENGTH),
            (state.hidden, hiding_E, SEEN_LENGTH),
            (state.followed, following_E, FOLLOWED_LENGTH),
        ):
            added: defaultdict[int, list[bytes]] = defaultdict(list)
            of_E, items = row_U[batch.user_E[events]].tolist(), batch.item_E[events].tolist()
            for row, item in zip(of_E, items, strict=True):
                added[row].append(batch.items[item])
            for row, keys in added.items():
                part.set(row, key_lists.extend(part.values[row], keys, limit=limit))

    def _remember(self, engagements: Sequence[Engagement]) -> None:
        """Histories and trends."""
        state = self._state
        by_user: defaultdict[bytes, list[Action]] = defaultdict(list)
        for one in engagements:
            by_user[one.user].append(one.action)
        state.profiles.load(state.reader, by_user)
        for user, actions in by_user.items():
            held = state.histories.get(state.reader, user)
            state.histories.put(state.reader, user, histories.extend(held, actions))
            profile = unpack_profile(state.profiles.get(state.reader, user))
            segment = (profile or Profile("")).segment
            for action in actions:
                for name in (segment, TRENDING_EVERYONE):
                    state.trending.add(name, action.item_key, action.at_us / US_PER_S)

    def _publish(self, versions: Sequence[ItemVersion]) -> None:
        state = self._state
        for version in versions:
            key = key_bytes(item_key(version.item_id))
            before = unpack_item(state.catalogue.get(state.reader, key))
            after = with_version(before, version)
            if after == before:
                continue
            state.catalogue.put(key, pack_item(after))
            if before is None or after.first != before.first:
                self._resolve(key, after)

    def _resolve(self, key: bytes, item: ItemState) -> None:
        """Views that waited for the item's type engage after all, where they were long enough."""
        state = self._state
        for view in state.parked.take(state.reader, key, item.first_at_us):
            if not engages(InteractionType.VIEW, view.dwell_s, view.at_us, item):
                continue
            user = user_key(view.user_id)
            if state.erased.covers(view.user_id, view.at_us):
                continue
            for table, of, name in (
                (state.users, user, view.user_id),
                (state.items, key, view.item_id),
            ):
                row = table.places(state.reader, [of], [name])
                engaged = np.array([COUNTER_INDEX[Counter.ENGAGEMENTS]])
                self._move(table, Moves(row, engaged, np.ones(1), np.array([view.at_us])))
            action = Action(view.at_us, view.event_id.encode(), key_number(key), _VIEW)
            self._remember([Engagement(user, key, action)])
            if self._mark_readers:
                state.waiting_users.mark(user, view.at_us)
            if self._mark_items:
                state.waiting_items.mark(key, view.at_us)

    def _take_profile(self, profile: Profile) -> None:
        state = self._state
        if state.erased.covers(profile.user_id, profile.at_us):
            return
        if self._has_passed(profile):
            if profile.gone:
                return
            [owner] = self._owners([profile.user_id], [profile.at_us])
            profile = profile.left_to(owner)
        key = user_key(profile.user_id)
        packed = newest(state.profiles.get(state.reader, key), profile)
        if packed is not None:
            state.profiles.put(key, packed)
            if self._mark_readers:
                state.waiting_users.mark(key, profile.at_us, Changed.PROFILE)


def _mark_each(
    outbox: Outbox, keys: list[bytes], place_E: np.ndarray, at_us_E: np.ndarray, what: list[int]
) -> None:
    """Mark each key since its earliest event. Shapes: place_E (E,) into `keys` and `what`."""
    since_us = np.full(len(keys), np.iinfo(np.int64).max)
    np.minimum.at(since_us, place_E, at_us_E)
    for key, since, changed in zip(keys, since_us.tolist(), what, strict=True):
        outbox.mark(key, since, changed)
