"""A stream that was away longer than the Redis bus keeps records misses nothing of the lake."""

import random
from datetime import UTC, datetime, timedelta

import pytest
from feedrank_core.contracts.ids import item_key
from feedrank_core.contracts.items import Item
from feedrank_core.contracts.topics import USER_CHANGES
from feedrank_core.contracts.user_changes import ChangeKind, UserChange
from feedrank_core.contracts.users import User
from feedrank_core.runtime.lake import Lake
from feedrank_feature_store.consumer import GROUP
from feedrank_feature_store.stream.catalogue_state import key_bytes, unpack_item
from feedrank_feature_store.stream.inputs import FOLDED, microseconds
from feedrank_feature_store.stream.profile_state import unpack_profile
from feedrank_feature_store.stream.state import State, user_key
from stream_checks import assert_equals
from stream_running import Running, carry_out, copy_to_lake, publish
from stream_world import drawn_log, plainly


def assert_described(state: State, log: list) -> None:
    """Each item and each profile is as it was published last."""
    for item in {m.item_id for m in log if isinstance(m, Item)}:
        last = max(m.accepted_at for m in log if isinstance(m, Item) and m.item_id == item)
        held = unpack_item(state.catalogue.get(state.reader, key_bytes(item_key(item))))
        assert held is not None and held.word[0] == microseconds(last)
    for user in {m.user_id for m in log if isinstance(m, User)}:
        last = max(m.accepted_at for m in log if isinstance(m, User) and m.user_id == user)
        held = unpack_profile(state.profiles.get(state.reader, user_key(user)))
        assert held is not None and held.at_us == microseconds(last)


def fold_all(running: Running) -> None:
    """Read until the bus has no more, and look once how far behind the stream is."""
    running.fold()
    running.follower._measured_at = float("-inf")
    running.fold()
    running.fold()


@pytest.mark.parametrize("num_later", [0, 200], ids=["nothing follows", "more follows"])
def test_what_the_bus_dropped_meanwhile_comes_from_the_lake(tmp_path, started, bus, num_later):
    log = drawn_log(random.Random(8), 400 + num_later)
    publish(bus, *log[:200])
    with started() as running:
        fold_all(running)
        running.follower.save()
    publish(bus, *log[200:400])
    copy_to_lake(bus, Lake(tmp_path / "lake"))
    for topic in FOLDED:
        bus.trim(topic, now=datetime.now(UTC) + topic.retention + timedelta(days=1), behind=())
    publish(bus, *log[400:])
    order = UserChange(
        change_id="1" * 32, kind=ChangeKind.MERGE, user_id="nobody", into="u1",
        accepted_at=datetime.now(UTC),
    )  # fmt: skip
    carry_out(bus, Lake(tmp_path / "lake"), order)
    with started() as running:
        fold_all(running)
        assert_equals(running.state, plainly(log))
        assert_described(running.state, log)
    assert bus.committed(USER_CHANGES, group=GROUP) == {0: 1}
