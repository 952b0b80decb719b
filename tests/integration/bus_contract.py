"""What every bus guarantees, as one test class that each adapter subclasses.

A subclass gives `bus`, empty and with leases of LEASE_S, `outage`, during which the bus does not
answer, and `drop`, which does what the bus does once retention is over. Nothing here knows which
bus it is: a reader may hold records that it was sent before an outage, and hand them out during it.
"""

import base64
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from itertools import takewhile

import pytest
from feedrank_core.contracts.dead_letters import DeadLetter
from feedrank_core.contracts.topics import (
    INTERACTIONS,
    ITEMS,
    VERDICTS,
    Topic,
    with_dead_letters,
)
from feedrank_core.runtime.bus import (
    Bus,
    BusUnavailableError,
    Consumer,
    LeaseLostError,
    Outgoing,
    Record,
    partition_of,
)

LEASE_S = 1.0
OUTAGE_S = 1.5
PATIENCE_S = 10.0
Outage = Callable[[], AbstractContextManager[None]]
Drop = Callable[[Topic, int], None]
"""Of each partition the records before an offset."""


def outgoing(num_records: int, num_keys: int = 5) -> list[Outgoing]:
    return [Outgoing(f"key-{n % num_keys}", b"%d" % n) for n in range(num_records)]


def read(consumer: Consumer, num_records: int, *, commit: bool = True) -> list[Record]:
    found: list[Record] = []
    deadline = time.monotonic() + PATIENCE_S
    while len(found) < num_records and time.monotonic() < deadline:
        batch = consumer.poll(max_records=100, timeout_s=0.2)
        if commit:
            consumer.commit(batch)
        found += batch
    return found


def read_one(consumer: Consumer) -> list[Record]:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if batch := consumer.poll(max_records=1, timeout_s=0.2):
            return batch
    raise AssertionError("no record came")


def only_letter(bus: Bus) -> DeadLetter:
    twin = with_dead_letters()[VERDICTS.dlq]
    with bus.consumer([twin], group="cli", member="a") as consumer:
        (dead,) = read(consumer, 1)
    assert dead.value is not None
    return DeadLetter.model_validate_json(dead.value)


def until_caught_up(broadcast: Iterator[Record | None]) -> list[Record]:
    return [r for r in takewhile(lambda r: r is not None, broadcast) if r is not None]


class BusContract:
    @pytest.fixture
    def bus(self) -> Bus:
        raise NotImplementedError

    @pytest.fixture
    def outage(self) -> Outage:
        raise NotImplementedError

    @pytest.fixture
    def drop(self, bus: Bus) -> Drop:
        raise NotImplementedError

    @pytest.fixture(autouse=True)
    def _topics(self, bus: Bus) -> None:
        bus.create_topics()
        bus.create_topics()

    def test_records_of_one_key_keep_their_order_and_their_content(self, bus: Bus) -> None:
        bus.publisher().publish(INTERACTIONS, outgoing(200))
        by_key: dict[str, list[int]] = defaultdict(list)
        with bus.consumer([INTERACTIONS], group="g", member="a") as consumer:
            for record in read(consumer, 200):
                assert record.value is not None
                by_key[record.key].append(int(record.value))
        assert sum(map(len, by_key.values())) == 200
        assert all(values == sorted(values) for values in by_key.values())

    def test_offsets_are_dense_from_zero_in_every_partition(self, bus: Bus) -> None:
        publisher = bus.publisher()
        for start in range(0, 90, 30):
            publisher.publish(INTERACTIONS, outgoing(90)[start : start + 30])
        offsets: dict[int, list[int]] = defaultdict(list)
        with bus.consumer([INTERACTIONS], group="g", member="a") as consumer:
            for record in read(consumer, 90):
                assert record.partition == partition_of(record.key, INTERACTIONS.partitions)
                offsets[record.partition].append(record.offset)
        assert all(found == list(range(len(found))) for found in offsets.values())
        ends = {p: n for p, n in bus.end_offsets(INTERACTIONS).items() if n}
        assert ends == {p: len(found) for p, found in offsets.items()}

    def test_a_commit_covers_a_prefix_and_survives_its_reader(self, bus: Bus) -> None:
        bus.publisher().publish(VERDICTS, outgoing(10))
        with bus.consumer([VERDICTS], group="g", member="a") as first:
            records = read(first, 10, commit=False)
            assert first.lag() == {("verdicts", 0): 10}
            first.commit(records[3:4])
            assert first.lag() == {("verdicts", 0): 6}
        assert bus.committed(VERDICTS, group="g") == {0: 4}
        with bus.consumer([VERDICTS], group="g", member="b") as second:
            assert [r.offset for r in read(second, 6)] == [4, 5, 6, 7, 8, 9]

    def test_a_commit_never_goes_back(self, bus: Bus) -> None:
        bus.publisher().publish(VERDICTS, outgoing(4))
        with bus.consumer([VERDICTS], group="g", member="a") as consumer:
            records = read(consumer, 4, commit=False)
            consumer.commit(records)
            consumer.commit(records[:1])
        assert bus.committed(VERDICTS, group="g") == {0: 4}

    def test_what_was_not_committed_comes_again_after_a_crash(self, bus: Bus) -> None:
        bus.publisher().publish(VERDICTS, outgoing(5))
        with ExitStack() as stack:
            crashed = stack.enter_context(bus.consumer([VERDICTS], group="g", member="a"))
            assert len(read(crashed, 5, commit=False)) == 5
            heir = stack.enter_context(bus.consumer([VERDICTS], group="g", member="b"))
            assert [r.offset for r in read(heir, 5)] == [0, 1, 2, 3, 4]

    def test_what_was_dropped_before_it_was_read_is_no_lag(self, bus: Bus, drop: Drop) -> None:
        publisher = bus.publisher()
        publisher.publish(VERDICTS, outgoing(10))
        with bus.consumer([VERDICTS], group="g", member="a") as consumer:
            consumer.commit(read(consumer, 10, commit=False)[:4])
            assert consumer.lag() == {("verdicts", 0): 6}
            drop(VERDICTS, 7)
            assert consumer.lag() == {("verdicts", 0): 3}
            drop(VERDICTS, 10)
            assert consumer.lag() == {("verdicts", 0): 0}
            publisher.publish(VERDICTS, outgoing(1))
            assert consumer.lag() == {("verdicts", 0): 1}
            assert [r.offset for r in read(consumer, 1)] == [10]
        assert bus.end_offsets(VERDICTS) == {0: 11}

    def test_from_where_on_records_are_held_is_known(self, bus: Bus, drop: Drop) -> None:
        assert bus.first_offsets(VERDICTS, {0: 0}) == {0: 0}
        publisher = bus.publisher()
        publisher.publish(VERDICTS, outgoing(10))
        drop(VERDICTS, 4)
        found = [bus.first_offsets(VERDICTS, {0: start}) for start in (0, 4, 6, 10)]
        assert found == [{0: 4}, {0: 4}, {0: 6}, {0: 10}]
        drop(VERDICTS, 10)
        assert bus.first_offsets(VERDICTS, {0: 6}) == {0: 10}

    def test_each_group_reads_everything(self, bus: Bus) -> None:
        bus.publisher().publish(INTERACTIONS, outgoing(20))
        for group in ("g", "h"):
            with bus.consumer([INTERACTIONS], group=group, member="a") as consumer:
                assert len(read(consumer, 20)) == 20

    def test_members_share_partitions_and_each_has_one_reader(self, bus: Bus) -> None:
        with ExitStack() as stack:
            members = [
                stack.enter_context(bus.consumer([INTERACTIONS], group="g", member=m))
                for m in ("a", "b")
            ]
            threads = stack.enter_context(ThreadPoolExecutor(2))
            share: list[set[int]] = []
            deadline = time.monotonic() + PATIENCE_S
            while time.monotonic() < deadline:
                # At once, as processes do: a group may only settle while all its members poll.
                list(threads.map(lambda m: m.poll(max_records=1, timeout_s=0.5), members))
                share = [{p for _, p in member.lag()} for member in members]
                if [len(s) for s in share] == [4, 4]:
                    break
            assert [len(s) for s in share] == [4, 4]
            assert share[0] | share[1] == set(range(8))
            bus.publisher().publish(INTERACTIONS, outgoing(80, num_keys=40))
            found: list[Record] = []
            while len(found) < 80 and time.monotonic() < deadline:
                for member, held in zip(members, share, strict=True):
                    batch = member.poll(max_records=100, timeout_s=0.1)
                    assert {r.partition for r in batch} <= held
                    member.commit(batch)
                    found += batch
            assert len({(r.partition, r.offset) for r in found}) == len(found) == 80

    def test_a_reader_that_slept_too_long_loses_its_lease(self, bus: Bus) -> None:
        bus.publisher().publish(VERDICTS, outgoing(3))
        with ExitStack() as stack:
            sleeper = stack.enter_context(bus.consumer([VERDICTS], group="g", member="a"))
            stale = read(sleeper, 3, commit=False)
            heir = stack.enter_context(bus.consumer([VERDICTS], group="g", member="b"))
            assert len(read(heir, 3)) == 3
            with pytest.raises(LeaseLostError):
                sleeper.commit(stale)
        assert bus.committed(VERDICTS, group="g") == {0: 3}

    def test_closing_gives_the_partitions_up_at_once(self, bus: Bus) -> None:
        bus.publisher().publish(VERDICTS, outgoing(1))
        with bus.consumer([VERDICTS], group="g", member="a") as consumer:
            read(consumer, 1, commit=False)
        start = time.monotonic()
        with bus.consumer([VERDICTS], group="g", member="b") as consumer:
            assert len(read(consumer, 1)) == 1
        assert time.monotonic() - start < LEASE_S

    def test_a_sink_may_continue_at_its_own_position(self, bus: Bus) -> None:
        bus.publisher().publish(VERDICTS, outgoing(6))
        with bus.consumer([VERDICTS], group="g", member="a") as consumer:
            consumer.seek(0, 4, topic="verdicts")
            assert [r.offset for r in read(consumer, 2)] == [4, 5]
            consumer.seek(0, 1, topic="verdicts")
            assert [r.offset for r in read(consumer, 5)] == [1, 2, 3, 4, 5]

    def test_a_sought_place_holds_when_the_partition_comes_back(self, bus: Bus) -> None:
        bus.publisher().publish(VERDICTS, outgoing(6))
        with bus.consumer([VERDICTS], group="g", member="a") as consumer:
            read(consumer, 6)
        with ExitStack() as stack:
            sleeper = stack.enter_context(bus.consumer([VERDICTS], group="g", member="b"))
            sleeper.seek(0, 0, topic="verdicts")
            found = read(sleeper, 6, commit=False)
            sleeper.commit(found[:2])
            with bus.consumer([VERDICTS], group="g", member="c") as heir:
                deadline = time.monotonic() + PATIENCE_S
                while not heir.lag() and time.monotonic() < deadline:
                    heir.poll(max_records=1, timeout_s=0.2)
            assert [r.offset for r in read(sleeper, 4)] == [2, 3, 4, 5]
        assert bus.committed(VERDICTS, group="g") == {0: 6}

    def test_a_poll_waits_for_a_record_and_returns_when_it_comes_to_nothing(self, bus: Bus) -> None:
        with bus.consumer([VERDICTS], group="g", member="a") as consumer:
            start, cpu = time.monotonic(), time.process_time()
            assert consumer.poll(max_records=10, timeout_s=0.6) == []
            assert 0.5 < time.monotonic() - start < 1.2
            assert time.process_time() - cpu < 0.2

    def test_a_dead_letter_says_what_why_and_where_from(self, bus: Bus) -> None:
        bus.publisher().publish(VERDICTS, [Outgoing("drift", b"\xff\x00")])
        with bus.consumer([VERDICTS], group="g", member="a") as consumer:
            (record,) = read(consumer, 1)
            consumer.dead_letter(record, "value is not JSON")
        letter = only_letter(bus)
        assert (letter.topic, letter.partition, letter.offset) == ("verdicts", 0, 0)
        assert (letter.key, letter.reason) == ("drift", "value is not JSON")
        assert letter.value == "/wA="

    def test_of_a_huge_record_the_dead_letter_holds_the_beginning(self, bus: Bus) -> None:
        bus.publisher().publish(VERDICTS, [Outgoing("drift", b"x" * (7 << 19))])
        with bus.consumer([VERDICTS], group="g", member="a") as consumer:
            (record,) = read(consumer, 1)
            consumer.dead_letter(record, "too much")
        letter = only_letter(bus)
        assert base64.b64decode(letter.value) == b"x" * (1 << 20)
        assert letter.reason == "too much (the first 1048576 of 3670016 bytes)"

    def test_broadcast_gives_every_reader_every_record_from_an_offset(self, bus: Bus) -> None:
        bus.publisher().publish(VERDICTS, outgoing(5))
        for _ in range(2):
            found = until_caught_up(bus.broadcast(VERDICTS, offsets={0: 2}))
            assert [r.offset for r in found] == [2, 3, 4]
        assert len(until_caught_up(bus.broadcast(VERDICTS))) == 5

    def test_broadcast_of_a_compacted_topic_starts_with_the_last_of_each_key(
        self, bus: Bus
    ) -> None:
        publisher = bus.publisher()
        first = [Outgoing("a", b"1"), Outgoing("b", b"2"), Outgoing("a", b"3"), Outgoing("c", b"4")]
        publisher.publish(ITEMS, first)
        publisher.publish(ITEMS, [Outgoing("b", None)])
        stream = bus.broadcast(ITEMS)
        state: dict[str, bytes | None] = {}
        for record in until_caught_up(stream):
            state[record.key] = record.value
        assert {k: v for k, v in state.items() if v is not None} == {"a": b"3", "c": b"4"}
        publisher.publish(ITEMS, [Outgoing("c", b"5"), Outgoing("a", None)])
        later = {r.key: r.value for r in until_caught_up(stream)}
        assert later == {"c": b"5", "a": None}

    def test_an_outage_is_an_error_in_time_and_costs_no_record(
        self, bus: Bus, outage: Outage
    ) -> None:
        publisher = bus.publisher()
        publisher.publish(VERDICTS, outgoing(3))
        with bus.consumer([VERDICTS], group="g", member="a") as consumer:
            consumer.commit(read_one(consumer))
            sent_before: list[Record] = []

            def poll() -> None:
                while batch := consumer.poll(max_records=1, timeout_s=0.1):
                    sent_before.extend(batch)

            calls: list[Callable[[], object]] = [
                bus.ping,
                lambda: publisher.publish(VERDICTS, outgoing(1)),
                poll,
                lambda: bus.end_offsets(VERDICTS),
            ]
            with outage():
                for call in calls:
                    start = time.monotonic()
                    with pytest.raises(BusUnavailableError):
                        call()
                    took_s = time.monotonic() - start
                    assert took_s < OUTAGE_S, (calls.index(call), took_s)
            found = sent_before + read(consumer, 2 - len(sent_before), commit=False)
            assert [r.offset for r in found][:2] == [1, 2]
