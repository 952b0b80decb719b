"""The stream's state: equal to the plain fold, whole after any stop, each event once."""

import random
from datetime import timedelta

import pytest
from feedrank_core.contracts.events import Interaction, InteractionType
from feedrank_core.runtime.bus import Record
from feedrank_core.runtime.lake_changes import Tombstones
from feedrank_core.runtime.subjects import Subjects
from feedrank_feature_store.stream import histories, tables
from feedrank_feature_store.stream.erasing import erase, merge
from feedrank_feature_store.stream.folding import Folder
from feedrank_feature_store.stream.inputs import from_records, microseconds
from feedrank_feature_store.stream.remembered import GENERATION_S
from feedrank_feature_store.stream.state import (
    State,
    StateInUseError,
    StateLayoutError,
    only_one,
    user_key,
)
from stream_checks import assert_equals, assert_lists_equal, item_keys
from stream_world import START, TOPIC_OF, an_item, drawn_log, plainly

NOW_S = START.timestamp()


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "state"
    with only_one(path):
        yield path


@pytest.fixture
def opened(folder):
    """Opens the state; what a test left open is closed."""
    states = []

    def open_state() -> State:
        states.append(State(folder))
        return states[-1]

    yield open_state
    for state in states:
        state.close()


def records(messages: list) -> list[Record]:
    return [
        Record(TOPIC_OF[type(m)].name, 0, n, "k", m.model_dump_json().encode(), START)
        for n, m in enumerate(messages)
    ]


def fold_all(state: State, messages: list) -> int:
    return Folder(state).fold(from_records(records(messages)))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("held_bytes", [tables.MAX_BYTES, 0])
def test_batches_and_restarts_at_any_place_equal_the_plain_fold(
    opened, seed, held_bytes, monkeypatch
):
    monkeypatch.setattr(tables, "MAX_BYTES", held_bytes)
    rng = random.Random(seed)
    log = drawn_log(rng, 600)
    state, start = opened(), 0
    while start < len(log):
        end = start + rng.randrange(1, 60)
        fold_all(state, log[start:end])
        start = end
        if rng.random() < 0.5:
            state.checkpoint(now_s=NOW_S)
        if rng.random() < 0.2:
            state.checkpoint(now_s=NOW_S)
            state.close()
            state = opened()
    plain = plainly(log)
    assert_equals(state, plain)
    state.checkpoint(now_s=NOW_S)
    assert_equals(state, plain)
    assert_lists_equal(state, log)
    assert state.entries() == {"users": len(plain.users), "items": len(plain.items)}


def test_what_was_in_no_checkpoint_is_forgotten_whole(opened):
    log = drawn_log(random.Random(1), 300)
    state = opened()
    fold_all(state, log[:200])
    state.positions["interactions", 3] = 200
    state.checkpoint(now_s=NOW_S)
    fold_all(state, log[200:])
    state.positions["interactions", 3] = 300
    state.close()
    again = opened()
    assert again.positions == {("interactions", 3): 200}
    assert_equals(again, plainly(log[:200]))
    fold_all(again, log[200:])
    assert_equals(again, plainly(log))


def view(event_id: str, at, dwell_s: float) -> Interaction:
    return Interaction(
        event_id=event_id,
        event_type=InteractionType.VIEW,
        user_id="u",
        item_id="i",
        dwell_s=dwell_s,
        occurred_at=at,
        accepted_at=at,
    )


@pytest.mark.parametrize("restart", [False, True])
def test_a_view_engages_once_its_item_proves_to_be_published_by_then(opened, restart):
    before, after = START + timedelta(seconds=1), START + timedelta(seconds=3)
    log: list = [view("early", before, 35.0), view("late", after, 35.0), view("short", after, 4.0)]
    log.append(an_item("i", START + timedelta(seconds=2), random.Random(0)))
    log.append(an_item("i", START, random.Random(0)))
    state = opened()
    for number, message in enumerate(log, 1):
        fold_all(state, [message])
        if restart:
            state.checkpoint(now_s=NOW_S)
        assert_equals(state, plainly(log[:number]))
    engaged = histories.unpack(state.histories.get(state.reader, user_key("u")))
    assert [a.event_id for a in engaged] == [b"early", b"late"]


def test_an_event_id_is_remembered_for_seven_days_and_then_forgotten(opened):
    state = opened()
    assert fold_all(state, [view("e", START, 1.0)]) == 1
    for day in range(8):
        state.checkpoint(now_s=NOW_S + day * 86_400)
        assert fold_all(state, [view("e", START, 1.0)]) == 0
    state.checkpoint(now_s=NOW_S + 8 * 86_400)
    state.checkpoint(now_s=NOW_S + 7 * GENERATION_S)
    assert fold_all(state, [view("e", START, 1.0)]) == 1


def test_a_second_process_is_told_that_the_state_is_in_use(folder):
    with pytest.raises(StateInUseError), only_one(folder):
        pass


def test_a_state_that_was_never_finished_is_refused(opened):
    state = opened()
    fold_all(state, [view("e", START, 1.0)])
    state.checkpoint(now_s=NOW_S, whole=False)
    state.close()
    with pytest.raises(StateLayoutError):
        opened()


def user_is_held(state: State, user: str) -> bool:
    key, reader = user_key(user), state.reader
    tables = (state.histories, state.profiles, state.seen, state.hidden, state.followed)
    held = [table.get(reader, key) for table in tables]
    return state.users.find(reader, key) is not None or any(held)


@pytest.mark.parametrize("saved", [False, True])
def test_an_erased_reader_is_gone_and_a_replay_does_not_bring_them_back(opened, saved):
    log = drawn_log(random.Random(2), 400)
    subjects = Subjects(b"key")
    until = max(m.accepted_at for m in log)
    tombstones = Tombstones(subjects, {subjects.of("u1"): until})
    state = opened()
    fold_all(state, log)
    if saved:
        state.checkpoint(now_s=NOW_S)
    erase(state, "u1")
    assert not user_is_held(state, "u1")
    state.checkpoint(now_s=NOW_S)
    assert not user_is_held(state, "u1") and user_is_held(state, "u2")
    state.close()
    again = opened()
    again.erased.take(tombstones)
    again.checkpoint(now_s=NOW_S + 10 * GENERATION_S)
    fold_all(again, log)
    assert not user_is_held(again, "u1")
    later = view("back", START + timedelta(days=40), 1.0).model_copy(update={"user_id": "u1"})
    assert fold_all(again, [later]) == 1
    assert len(item_keys(again.seen.get(again.reader, user_key("u1")))) == 1
    assert user_is_held(again, "u1")


def test_a_merged_reader_has_done_what_both_did(opened):
    log = drawn_log(random.Random(6), 500)
    state = opened()
    fold_all(state, log)
    merge(state, "u1", "u2", microseconds(START))
    merge(state, "u1", "u2", microseconds(START))
    state.checkpoint(now_s=NOW_S)
    assert not user_is_held(state, "u1")
    renamed = [
        m.model_copy(update={"user_id": "u2"}) if getattr(m, "user_id", "") == "u1" else m
        for m in log
    ]
    assert_equals(state, plainly(renamed))
