"""The stream while the bus or the disk fails between two steps, and killed before it recovers."""

from contextlib import contextmanager
from datetime import UTC, datetime

import lmdb
import pytest
from feedrank_core.contracts.events import Interaction, InteractionType
from feedrank_core.contracts.ids import item_key
from feedrank_core.contracts.redis_keys import HIDDEN
from feedrank_core.contracts.topics import INTERACTIONS, USER_CHANGES, with_dead_letters
from feedrank_core.contracts.user_changes import ChangeKind, UserChange
from feedrank_core.runtime.bus import BusUnavailableError, Outgoing
from feedrank_core.runtime.bus_memory import MemoryBus
from feedrank_core.runtime.lake import Lake
from feedrank_feature_store.consumer import GROUP
from feedrank_feature_store.stream.state import user_key
from stream_checks import item_keys
from stream_running import carry_out, publish

NOW = datetime.now(UTC)
LETTERS = with_dead_letters()[INTERACTIONS.dlq]


@pytest.fixture
def bus():
    bus = MemoryBus()
    bus.create_topics()
    return bus


def like(user: str) -> Interaction:
    return action(InteractionType.LIKE, user)


def action(kind: InteractionType, user: str) -> Interaction:
    return Interaction(
        event_id=f"{kind}-{user}",
        event_type=kind,
        user_id=user,
        item_id="i",
        occurred_at=NOW,
        accepted_at=NOW,
    )


def publish_broken(bus, *values: bytes) -> None:
    bus.publisher().publish(INTERACTIONS, [Outgoing("u", value) for value in values])


def merge(user: str, into: str) -> UserChange:
    return UserChange(
        change_id="1" * 32, kind=ChangeKind.MERGE, user_id=user, into=into, accepted_at=NOW
    )


@contextmanager
def failing(monkeypatch, of, name: str, error: Exception):
    """A method that raises."""

    def fail(*_, **__):
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(of, name, fail)
        yield


def counts(running, user: str) -> bool:
    return running.state.users.find(running.state.reader, user_key(user)) is not None


def num_committed(bus, topic) -> int:
    return sum(bus.committed(topic, group=GROUP).values())


AWAY = BusUnavailableError("away")
FULL = lmdb.DiskError("no space left on device")


def test_refused_records_wait_until_the_bus_takes_their_letters(started, bus, monkeypatch):
    publish_broken(bus, b"{", b"[")
    publish(bus, like("u"))
    with started() as running:
        consumer = running.follower._consumer
        with failing(monkeypatch, consumer, "dead_letter", AWAY):
            with pytest.raises(BusUnavailableError):
                running.follower.step()
            with pytest.raises(BusUnavailableError):
                running.follower.save()
            assert num_committed(bus, INTERACTIONS) == 0
        running.follower.step()
        running.follower.save()
        assert bus.end_offsets(LETTERS) == {0: 2}
        assert num_committed(bus, INTERACTIONS) == 3
        assert counts(running, "u")
        running.follower.save()
        assert bus.end_offsets(LETTERS) == {0: 2}


def test_a_kill_before_the_letter_is_taken_loses_no_letter(started, bus, monkeypatch):
    publish_broken(bus, b"{")
    with (
        started() as running,
        failing(monkeypatch, running.follower._consumer, "dead_letter", AWAY),
    ):
        for step in (running.follower.step, running.follower.save):
            with pytest.raises(BusUnavailableError):
                step()
    assert bus.end_offsets(LETTERS) == {0: 0}
    with started() as running:
        running.fold()
        running.follower.save()
    assert bus.end_offsets(LETTERS) == {0: 1}
    with started() as running:
        running.fold()
    assert bus.end_offsets(LETTERS) == {0: 1}


def test_a_commit_that_the_bus_did_not_take_is_made_without_another_record(started, bus):
    publish(bus, like("u"))
    with started() as running:
        running.fold()
        bus.is_down = True
        with pytest.raises(BusUnavailableError):
            running.follower.save()
        bus.is_down = False
        assert num_committed(bus, INTERACTIONS) == 0
        running.follower.save()
        assert num_committed(bus, INTERACTIONS) == 1


def test_a_kill_before_the_commit_leaves_nothing_uncommitted_and_counts_nothing_twice(started, bus):
    publish(bus, like("u"), like("v"))
    with started() as running:
        running.fold()
        bus.is_down = True
        with pytest.raises(BusUnavailableError):
            running.follower.save()
    bus.is_down = False
    with started() as running:
        running.fold()
        running.follower.save()
        assert num_committed(bus, INTERACTIONS) == 2
        found = running.state.users.find(running.state.reader, user_key("u"))
        assert found is not None and found[0].max() == 1.0


def test_an_order_is_not_committed_before_the_state_could_be_saved(
    tmp_path, started, bus, monkeypatch
):
    publish(bus, like("u"), like("v"))
    carry_out(bus, Lake(tmp_path / "lake"), merge("u", into="v"))
    with started() as running:
        with failing(monkeypatch, running.state, "checkpoint", FULL):
            for _ in range(3):
                with pytest.raises(lmdb.DiskError):
                    running.follower.step()
            assert num_committed(bus, USER_CHANGES) == 0
        running.follower.step()
        assert num_committed(bus, USER_CHANGES) == 1
    with started() as running:
        assert counts(running, "v") and not counts(running, "u")


def test_what_was_read_with_an_order_is_folded_also_where_the_bus_then_fails(
    tmp_path, started, bus, monkeypatch
):
    publish(bus, like("u"), like("v"))
    with started() as running:
        carry_out(bus, Lake(tmp_path / "lake"), merge("u", into="v"))
        orders = running.follower._orders
        with failing(monkeypatch, orders, "_ends", AWAY), pytest.raises(BusUnavailableError):
            running.follower.step()
        assert counts(running, "u") and counts(running, "v")
        running.follower.step()
        assert counts(running, "v") and not counts(running, "u")
        assert num_committed(bus, USER_CHANGES) == 1


def test_all_that_a_reader_did_up_to_the_last_checkpoint_is_shown_after_a_kill(started, bus, cache):
    with started() as running:
        running.show()
        for kind in (InteractionType.LIKE, InteractionType.HIDE, InteractionType.FOLLOW):
            publish(bus, action(kind, "u"))
            running.fold()
            running.follower.save()
    with started() as running:
        running.show()
    assert item_keys(cache.get(HIDDEN.key(user="u"))) == [item_key("i")]
