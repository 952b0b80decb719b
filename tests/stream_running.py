"""The stream's parts over a bus, stepped by a test; what is not saved dies with it."""

from collections import defaultdict
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import islice
from threading import Event, Lock, Thread

from feedrank_core.contracts.items import Item
from feedrank_core.contracts.topics import USER_CHANGES
from feedrank_core.contracts.user_changes import UserChange
from feedrank_core.runtime.bus import Outgoing
from feedrank_core.runtime.bus_open import open_bus
from feedrank_core.runtime.lake import Lake
from feedrank_core.runtime.lake_erasure import LakeEraser
from feedrank_core.runtime.metrics import Metrics
from feedrank_core.runtime.redis_clients import sync_client
from feedrank_feature_store.adapters.memory_online import MemoryOnline
from feedrank_feature_store.consumer import GROUP, StreamFollower
from feedrank_feature_store.priors import NO_PRIORS
from feedrank_feature_store.stream.cache_keys import CacheKeys
from feedrank_feature_store.stream.inputs import FOLDED
from feedrank_feature_store.stream.item_statistics import ItemStatistics
from feedrank_feature_store.stream.lake_log import LakeLog, open_state
from feedrank_feature_store.stream.online import OnlineWriter
from feedrank_feature_store.stream.orders import Orders
from feedrank_feature_store.stream.state import State, only_one
from stream_world import TOPIC_OF


class Running:
    """A stream of one state folder: its parts, stepped by the test in the test's thread."""

    def __init__(self, tmp_path, bus, cache, online: MemoryOnline, consumer) -> None:
        self.lake = Lake(tmp_path / "lake")
        self.bus, self.cache, self.online = bus, cache, online
        self.state: State = open_state(tmp_path / "stream", self.lake)
        lock, metrics = Lock(), Metrics("feature_store")
        self.writer = OnlineWriter(
            self.state, lock, CacheKeys(cache), lambda: online, lambda: NO_PRIORS, metrics
        )
        self.statistics = ItemStatistics(
            self.state, lock, bus.publisher(), lambda: NO_PRIORS, metrics, every_s=60
        )
        self.follower = StreamFollower(
            bus,
            consumer,
            self.state,
            lock,
            LakeLog(self.lake, self.state),
            Orders(bus, self.state, lock, self.lake, self.writer.forget),
            metrics,
            wake=self.writer.wake.set,
            max_records=100,
            checkpoint_s=3600,
        )
        self.follower._resume()

    def fold(self) -> None:
        """Read until nothing is left."""
        while self.follower.step():
            pass

    def imports(self) -> None:
        self.follower._imported_at = float("-inf")
        self.fold()

    def show(self) -> None:
        """Write until everything is shown."""
        while self.writer.step():
            pass

    def check_cache(self) -> None:
        self.writer._next_check = self.writer._next_trends = 0.0
        self.show()


@contextmanager
def started(home, bus, cache, online: MemoryOnline):
    """Runs a stream below `home`; leaving it is a kill."""
    with (
        only_one(home / "stream"),
        bus.consumer((*FOLDED, USER_CHANGES), group=GROUP, member="m") as consumer,
    ):
        running = Running(home, bus, cache, online, consumer)
        try:
            yield running
        finally:
            running.state.close()


def fold_until_killed(home, bus_url: str, cache_url: str) -> None:
    """What a process of its own does: it saves after each small read, and tells how items fare."""
    bus = open_bus(bus_url)
    with sync_client(cache_url) as cache, started(home, bus, cache, MemoryOnline()) as running:
        running.follower._max_records, running.follower._checkpoint_s = 20, 0.0
        running.statistics._every_s = 0.001
        Thread(target=running.statistics.run, args=(Event(),), daemon=True).start()
        running.follower.run(Event())


def publish(bus, *messages) -> None:
    publisher, by_topic = bus.publisher(), defaultdict(list)
    for message in messages:
        key = message.item_id if isinstance(message, Item) else message.user_id
        value = message.model_dump_json().encode()
        by_topic[TOPIC_OF[type(message)]].append(Outgoing(key, value))
    for topic, records in by_topic.items():
        publisher.publish(topic, records)


def carry_out(bus, lake: Lake, change: UserChange) -> None:
    """What the lake does with an order, and the order itself."""
    eraser = LakeEraser(lake, grace=timedelta(0))
    eraser.apply([change])
    eraser.settle([change], datetime.now(UTC))
    value = change.model_dump_json().encode()
    bus.publisher().publish(USER_CHANGES, [Outgoing(change.user_id, value)])


def copy_to_lake(bus, lake: Lake) -> None:
    """What the lake sink does."""
    for topic in FOLDED:
        rows, positions = [], {}
        everything = bus.broadcast(topic, offsets=dict.fromkeys(range(topic.partitions), 0))
        # No more than there is: at its end a bus waits for what follows.
        for record in islice(everything, sum(bus.end_offsets(topic).values())):
            if record is None:
                break
            message = topic.model.model_validate_json(record.value)
            place = {"topic_partition": record.partition, "topic_offset": record.offset}
            rows.append(message.model_dump() | place)
            positions[record.partition] = record.offset + 1
        lake.append(topic.name, rows, positions=positions)
