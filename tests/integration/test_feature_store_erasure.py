"""Orders in the feature store: the stream's state, tables that a daily run writes, the cache."""

import contextlib
import uuid
from datetime import UTC, datetime, timedelta
from threading import Lock

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feedrank_core.contracts.events import Interaction, InteractionType
from feedrank_core.contracts.features import Table
from feedrank_core.contracts.ids import item_key
from feedrank_core.contracts.redis_keys import CANDIDATES, FOLLOWED, REDIS_KEYS, SEEN, SERVED
from feedrank_core.contracts.topics import CHANGE_REPORTS, INTERACTIONS, USER_CHANGES
from feedrank_core.contracts.user_changes import (
    STREAM_GROUP,
    ChangeKind,
    ChangeReport,
    Store,
    StoreState,
    UserChange,
)
from feedrank_core.runtime.bus import Outgoing
from feedrank_core.runtime.bus_memory import MemoryBus
from feedrank_core.runtime.change_reports import Reporter
from feedrank_core.runtime.lake import Lake
from feedrank_core.runtime.lake_erasure import LakeEraser
from feedrank_core.runtime.redis_clients import sync_client
from feedrank_core.runtime.subjects import Subjects
from feedrank_feature_store.erasure.cache_sweep import sweep
from feedrank_feature_store.erasure.follower import OrderFollower
from feedrank_feature_store.erasure.table_rows import (
    ErasedSince,
    TablesInUseError,
    only_writer,
    remove_readers,
)
from feedrank_feature_store.ports import OnlineStoreError
from feedrank_feature_store.stream.folding import Folder
from feedrank_feature_store.stream.inputs import FOLDED, from_records
from feedrank_feature_store.stream.lake_log import open_state
from feedrank_feature_store.stream.orders import Orders
from feedrank_feature_store.stream.state import user_key

T0 = datetime(2026, 1, 2, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
NEEDLE, OTHER = "reader-needle", "other"
ODD = ("a:b", "*", "seen:x", "x\\?[a]", "читатель 7", " ", "x")


def click(user, at, event_id=None):
    return Interaction(
        event_id=event_id or uuid.uuid4().hex,
        user_id=user,
        item_id="i1",
        event_type=InteractionType.CLICK,
        occurred_at=at,
        accepted_at=at,
    )


def order(user, at, into=None):
    kind = ChangeKind.MERGE if into else ChangeKind.ERASE
    return UserChange(
        change_id=uuid.uuid4().hex, kind=kind, user_id=user, into=into, accepted_at=at
    )


def carry_out_in(lake, change):
    eraser = LakeEraser(lake, grace=timedelta(0))
    eraser.apply([change])
    eraser.settle([change], T0 + timedelta(days=30))


@pytest.fixture
def cache(cache_url):
    with sync_client(cache_url, timeout_s=2) as client:
        yield client


@pytest.fixture
def bus():
    bus = MemoryBus()
    bus.create_topics()
    return bus


def publish(bus, topic, *messages):
    values = [Outgoing(m.user_id, m.model_dump_json().encode()) for m in messages]
    bus.publisher().publish(topic, values)


def write_tables(folder, ids):
    folder.mkdir(exist_ok=True)
    whole = pa.table({"user_id": ids, "at": pa.array([T0] * len(ids), pa.timestamp("us", "UTC"))})
    for table in Table:
        of_readers = "user" in table.value or table is Table.ENGAGEMENTS
        pq.write_table(whole if of_readers else whole.drop_columns(["user_id"]), folder / table)


def test_readers_leave_every_table_and_the_rest_keeps_its_order_and_types(tmp_path):
    ids = [NEEDLE, "a", NEEDLE, "b", *("c" for _ in range(100))]
    write_tables(tmp_path, ids)
    schemas = {table: pq.read_schema(tmp_path / table) for table in Table}
    with only_writer(tmp_path, wait=False):
        removed = remove_readers(tmp_path, {NEEDLE, "nobody"})
    of_readers = [t for t in Table if "user_id" in schemas[t].names]
    assert removed == {NEEDLE: 2 * len(of_readers)}
    for table in of_readers:
        rows = pq.read_table(tmp_path / table)
        assert rows["user_id"].to_pylist() == [i for i in ids if i != NEEDLE]
        assert rows.schema == schemas[table]
    assert not [p for p in tmp_path.iterdir() if NEEDLE.encode() in p.read_bytes()]
    assert remove_readers(tmp_path, {NEEDLE}) == {}


def test_a_daily_run_that_saw_the_lake_before_an_erasure_leaves_the_reader_out(tmp_path):
    lake = Lake(tmp_path / "lake")
    lake.append("interactions", [click(NEEDLE, T0).model_dump(), click("a", T0).model_dump()])
    carry_out_in(lake, order("a", T0 + MINUTE))
    daily = ErasedSince(Lake(lake.root))
    carry_out_in(lake, order(NEEDLE, T0 + MINUTE))
    write_tables(tmp_path / "features", ["a", NEEDLE, OTHER])
    with only_writer(tmp_path / "features", wait=True):
        daily.remove(tmp_path / "features")
    # Whoever was erased before the run began is in its tables only if they came back.
    left = pq.read_table(tmp_path / "features" / Table.USERS)["user_id"].to_pylist()
    assert left == ["a", OTHER]


def test_an_order_that_the_lake_has_only_begun_counts_as_not_seen_by_a_run(tmp_path, monkeypatch):
    lake = Lake(tmp_path / "lake")
    lake.append("interactions", [click(NEEDLE, T0).model_dump()])
    eraser = LakeEraser(lake, grace=timedelta(0))
    monkeypatch.setattr(eraser, "_carry_out", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        eraser.apply([order(NEEDLE, T0 + MINUTE)])
    write_tables(tmp_path / "features", [NEEDLE, OTHER])
    ErasedSince(Lake(lake.root)).remove(tmp_path / "features")
    left = pq.read_table(tmp_path / "features" / Table.USERS)["user_id"].to_pylist()
    assert left == [OTHER]


def key_of(family, user):
    parts = {"bundle": "20261120T000000-1a2b3c4d", "session": "ab12", "segment": "SE|ios"}
    return family.key(
        **{n: v for n, v in parts.items() if f"{{{n}}}" in family.template}, user=user
    )


@pytest.mark.parametrize("gone", ODD)
def test_a_sweep_takes_every_key_of_a_reader_and_no_key_of_another(cache, gone):
    families = [f for f in REDIS_KEYS.values() if "{user}" in f.template]
    for user in ODD:
        for family in families:
            cache.set(key_of(family, user), b"x")
    cache.set(b"\xff\x00packed", b"x")
    assert sweep(cache, {gone}) == {gone: len(families)}
    left = {name.decode() for name in cache.scan_iter() if not name.startswith(b"\xff")}
    assert left == {key_of(f, user) for user in ODD if user != gone for f in families}
    assert {CANDIDATES, SERVED, SEEN, FOLLOWED} <= set(families)


class Streaming:
    """The stream's state and its orders, stepped by the test."""

    def __init__(self, bus, root, forgotten):
        self.lake = Lake(root / "lake")
        self.bus = bus
        self.state = open_state(root / "stream", self.lake)
        self.folder = Folder(self.state)
        self.orders = Orders(bus, self.state, Lock(), self.lake, forgotten)

    def step(self, consumer):
        records = consumer.poll(max_records=100, timeout_s=0.0)
        folded = self.orders.take(records)
        self.folder.fold(from_records(folded))
        for record in folded:
            self.state.positions[record.topic, record.partition] = record.offset + 1
        if self.orders.apply():
            self.state.checkpoint(now_s=T0.timestamp())
        self.orders.finish(consumer)
        return len(records)

    def counted(self, user):
        return self.state.users.find(self.state.reader, user_key(user)) is not None


def test_an_erasure_waits_for_the_lake_and_what_comes_later_from_before_it_is_refused(
    tmp_path, bus
):
    forgotten = []
    with bus.consumer((*FOLDED, USER_CHANGES), group=STREAM_GROUP, member="m") as consumer:
        stream = Streaming(bus, tmp_path, forgotten.append)
        publish(bus, INTERACTIONS, click(NEEDLE, T0), click(OTHER, T0))
        change = order(NEEDLE, T0 + MINUTE)
        publish(bus, USER_CHANGES, change)
        stream.step(consumer)
        stream.state.checkpoint(now_s=T0.timestamp())
        stream.step(consumer)
        assert stream.counted(NEEDLE)
        assert bus.committed(USER_CHANGES, group=STREAM_GROUP) == {0: 0}
        carry_out_in(Lake(tmp_path / "lake"), change)
        stream.step(consumer)
        assert not stream.counted(NEEDLE)
        assert stream.counted(OTHER)
        assert forgotten == [NEEDLE]
        assert bus.committed(USER_CHANGES, group=STREAM_GROUP) == {0: 1}
        publish(bus, INTERACTIONS, click(NEEDLE, T0 + MINUTE))
        stream.step(consumer)
        assert not stream.counted(NEEDLE)
        publish(bus, INTERACTIONS, click(NEEDLE, T0 + 2 * MINUTE))
        stream.step(consumer)
        assert stream.counted(NEEDLE)
        stream.state.close()


def test_an_erasure_is_applied_to_a_state_that_has_folded_thousands_of_events(tmp_path, bus):
    """More ids than one page of the state's file holds: its layout differs from there on."""
    with bus.consumer((*FOLDED, USER_CHANGES), group=STREAM_GROUP, member="m") as consumer:
        stream = Streaming(bus, tmp_path, lambda user_id: None)
        users = [f"{NEEDLE}-{n}" for n in range(200)]
        publish(bus, INTERACTIONS, *(click(user, T0) for user in users for _ in range(15)))
        while stream.step(consumer):
            pass
        stream.state.checkpoint(now_s=T0.timestamp())
        changes = [order(user, T0 + MINUTE) for user in users[::20]]
        for change in changes:
            carry_out_in(Lake(tmp_path / "lake"), change)
        publish(bus, USER_CHANGES, *changes)
        stream.step(consumer)
        assert bus.committed(USER_CHANGES, group=STREAM_GROUP) == {0: len(changes)}
        gone = {change.user_id for change in changes}
        assert {user for user in users if not stream.counted(user)} == gone
        stream.state.close()


def test_an_order_is_not_committed_before_the_online_store_has_forgotten(tmp_path, bus):
    forgotten = []

    def away(user_id):
        raise OnlineStoreError("away")

    change = order(NEEDLE, T0 + MINUTE)
    publish(bus, INTERACTIONS, click(NEEDLE, T0))
    publish(bus, USER_CHANGES, change)
    carry_out_in(Lake(tmp_path / "lake"), change)
    for forget, ends in ((away, {0: 0}), (forgotten.append, {0: 1})):
        with bus.consumer((*FOLDED, USER_CHANGES), group=STREAM_GROUP, member="m") as consumer:
            stream = Streaming(bus, tmp_path, forget)
            with contextlib.suppress(OnlineStoreError):
                stream.step(consumer)
            assert bus.committed(USER_CHANGES, group=STREAM_GROUP) == ends
            assert not stream.counted(NEEDLE)
            stream.state.close()
    assert forgotten == [NEEDLE]


@pytest.mark.parametrize("is_lake_first", [True, False])
def test_a_merge_waits_until_what_came_before_it_is_folded_and_the_lake_has_it(
    tmp_path, bus, is_lake_first
):
    with bus.consumer((*FOLDED, USER_CHANGES), group=STREAM_GROUP, member="m") as consumer:
        stream = Streaming(bus, tmp_path, lambda user_id: None)
        publish(bus, INTERACTIONS, click(NEEDLE, T0), click(OTHER, T0))
        change = order(NEEDLE, T0 + MINUTE, into=OTHER)
        publish(bus, USER_CHANGES, change)
        records = consumer.poll(max_records=100, timeout_s=0.0)
        events = stream.orders.take(records)

        def fold():
            stream.folder.fold(from_records(events))
            for record in events:
                stream.state.positions[record.topic, record.partition] = record.offset + 1

        def carry_out():
            carry_out_in(Lake(tmp_path / "lake"), change)

        first, second = (carry_out, fold) if is_lake_first else (fold, carry_out)
        for step in (first, second):
            assert not stream.orders.apply()
            step()
        assert stream.orders.apply()
        found = stream.state.users.find(stream.state.reader, user_key(OTHER))
        assert found is not None
        counters, _, name = found
        assert name == OTHER
        assert counters.max() == 2
        assert not stream.counted(NEEDLE)
        stream.state.close()


def test_a_merge_into_somebody_who_was_erased_in_the_lake_since_does_not_wait(tmp_path, bus):
    with bus.consumer((*FOLDED, USER_CHANGES), group=STREAM_GROUP, member="m") as consumer:
        stream = Streaming(bus, tmp_path, lambda user_id: None)
        publish(bus, INTERACTIONS, click(NEEDLE, T0), click(OTHER, T0))
        orders = order(NEEDLE, T0 + MINUTE, into=OTHER), order(OTHER, T0 + 2 * MINUTE)
        publish(bus, USER_CHANGES, *orders)
        for change in orders:
            carry_out_in(Lake(tmp_path / "lake"), change)
        for _ in range(2):
            stream.step(consumer)
        assert bus.committed(USER_CHANGES, group=STREAM_GROUP) == {0: 2}
        assert not stream.counted(NEEDLE)
        assert not stream.counted(OTHER)
        stream.state.close()


def test_the_rest_follows_once_the_stream_has_applied_an_order(tmp_path, bus, cache):
    write_tables(tmp_path, [NEEDLE, OTHER])
    cache.set(SEEN.key(user=NEEDLE), item_key("i1").to_bytes(8, "little", signed=True))
    forgotten = []
    subjects = Subjects(b"key")
    follower = OrderFollower(bus, cache, tmp_path, subjects, forgotten.append, member="m")
    change = order(NEEDLE, T0 + MINUTE)
    publish(bus, USER_CHANGES, change)
    with (
        Reporter(bus) as reporter,
        bus.consumer([USER_CHANGES], group="feature_eraser", member="m") as consumer,
    ):
        follower.step(consumer, reporter)
        assert cache.exists(SEEN.key(user=NEEDLE))
        with bus.consumer([USER_CHANGES], group=STREAM_GROUP, member="s") as stream:
            stream.commit(stream.poll(max_records=10, timeout_s=1))
        with only_writer(tmp_path, wait=False):
            follower.step(consumer, reporter)
        assert bus.end_offsets(CHANGE_REPORTS) == {0: 0}
        follower.step(consumer, reporter)
    assert not cache.exists(SEEN.key(user=NEEDLE))
    assert forgotten == [NEEDLE]
    with bus.consumer([CHANGE_REPORTS], group="t", member="t") as consumer:
        values = [r.value for r in consumer.poll(max_records=10, timeout_s=1)]
    reports = [ChangeReport.model_validate_json(value) for value in values]
    assert {r.store for r in reports} == set(Store) - {Store.BUS, Store.LAKE}
    assert {r.state for r in reports} == {StoreState.DONE}
    assert {r.subject for r in reports} == {subjects.of(NEEDLE)}


def test_tables_that_a_run_puts_online_are_not_touched_meanwhile(tmp_path):
    with (
        only_writer(tmp_path, wait=True),
        pytest.raises(TablesInUseError, match="daily run"),
        only_writer(tmp_path, wait=False),
    ):
        pass
