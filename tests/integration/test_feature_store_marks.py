"""What is still to be shown outlives a kill whole: since when, and all of what changed."""

import lmdb
import pytest
from feedrank_feature_store.stream.outbox import Changed
from feedrank_feature_store.stream.state import State, only_one
from stream_world import START

NOW_S = START.timestamp()
READER, OTHER = b"r" * 16, b"o" * 16
COUNTERS, HIDDEN, FOLLOWED = Changed.COUNTERS, Changed.HIDDEN, Changed.FOLLOWED


@pytest.fixture
def killed(tmp_path):
    """Opens the state as the next process finds it: what was in no checkpoint is gone."""
    states: list[State] = []

    def reopen() -> State:
        for state in states:
            state.close()
        states[:] = [State(tmp_path / "state")]
        return states[0]

    with only_one(tmp_path / "state"):
        yield reopen
        for state in states:
            state.close()


def fail(*_) -> bytes:
    raise lmdb.DiskError("no space left on device")


def test_what_changed_after_a_checkpoint_is_in_the_next(killed):
    state = killed()
    state.waiting_users.mark(READER, 5, COUNTERS)
    state.checkpoint(now_s=NOW_S)
    state.waiting_users.mark(READER, 7, HIDDEN)
    state.checkpoint(now_s=NOW_S)
    assert killed().waiting_users.take(9) == {READER: (5, COUNTERS | HIDDEN)}


def test_a_mark_under_way_and_one_made_meanwhile_are_both_kept(killed):
    state = killed()
    state.waiting_users.mark(READER, 5, HIDDEN)
    state.waiting_users.take(9)
    state.checkpoint(now_s=NOW_S)
    state.waiting_users.mark(READER, 7, COUNTERS)
    state.checkpoint(now_s=NOW_S)
    assert killed().waiting_users.take(9) == {READER: (5, HIDDEN | COUNTERS)}


def test_once_the_mark_under_way_is_shown_only_the_newer_one_is_left(killed):
    state = killed()
    state.waiting_users.mark(READER, 5, HIDDEN)
    state.checkpoint(now_s=NOW_S)
    state.waiting_users.done(state.waiting_users.take(9))
    state.waiting_users.mark(READER, 7, FOLLOWED)
    state.checkpoint(now_s=NOW_S)
    state = killed()
    assert state.waiting_users.take(9) == {READER: (7, FOLLOWED)}
    state.waiting_users.done([READER])
    state.checkpoint(now_s=NOW_S)
    assert len(killed().waiting_users) == 0


def test_a_checkpoint_that_failed_is_made_up_for_by_the_next(killed, monkeypatch):
    state = killed()
    state.waiting_users.mark(OTHER, 3, COUNTERS)
    state.checkpoint(now_s=NOW_S)
    state.waiting_users.done(state.waiting_users.take(9))
    state.waiting_users.mark(READER, 5, HIDDEN)
    state.waiting_items.mark(b"itemkey8", 6)
    state.trending.add("NL|web", 42, NOW_S)
    with monkeypatch.context() as full:
        full.setattr(state, "_meta", fail)
        with pytest.raises(lmdb.DiskError):
            state.checkpoint(now_s=NOW_S)
    state.checkpoint(now_s=NOW_S)
    state = killed()
    assert state.waiting_users.take(9) == {READER: (5, HIDDEN)}
    assert state.waiting_items.take(9) == {b"itemkey8": (6, COUNTERS)}
    assert state.trending.lists() == {"NL|web": [42]}


def test_who_is_forgotten_while_under_way_does_not_wait_again(killed):
    outbox = killed().waiting_users
    outbox.mark(READER, 5)
    outbox.mark(OTHER, 6)
    taken = outbox.take(9)
    outbox.forget(READER)
    outbox.again(taken)
    assert outbox.take(9) == {OTHER: (6, COUNTERS)}
