"""Builds the clients of each command and runs it; nothing else opens a connection."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Lock, Thread

import structlog
from feedrank_core.contracts.topics import USER_CHANGES
from feedrank_core.runtime.bus import Bus, BusUnavailableError
from feedrank_core.runtime.bus_open import open_bus
from feedrank_core.runtime.lake import Lake
from feedrank_core.runtime.metrics import Metrics
from feedrank_core.runtime.probes import probes
from feedrank_core.runtime.redis_clients import sync_client
from feedrank_core.runtime.stopping import stopping_on_signals
from feedrank_core.runtime.subjects import Subjects

from feedrank_feature_store.adapters.feast_online import FeastOnline
from feedrank_feature_store.batch_engine import batch_engine
from feedrank_feature_store.consumer import GROUP, PAUSE_S, StreamFollower, collect_seldom
from feedrank_feature_store.differences import Comparison
from feedrank_feature_store.erasure.follower import OrderFollower
from feedrank_feature_store.erasure.table_rows import ErasedSince, only_writer
from feedrank_feature_store.priors import NO_PRIORS, LatestPriors, read_priors
from feedrank_feature_store.settings import Settings
from feedrank_feature_store.stream.cache_keys import CacheKeys
from feedrank_feature_store.stream.inputs import FOLDED
from feedrank_feature_store.stream.item_statistics import ItemStatistics
from feedrank_feature_store.stream.lake_log import LakeLog, open_state
from feedrank_feature_store.stream.online import OnlineWriter
from feedrank_feature_store.stream.orders import Orders
from feedrank_feature_store.stream.state import State, StateInUseError, only_one

log = structlog.get_logger(__name__)

CACHE_TIMEOUT_S = 5.0


def extract_catalogue(settings: Settings, as_of: datetime) -> int:
    """Write catalogue.parquet as of then; the number of items. Blocks."""
    from feedrank_feature_store.tables import write_catalogue

    with batch_engine(settings, as_of) as engine:
        return write_catalogue(engine, settings.place.features, as_of)


def extract_features(settings: Settings, as_of: datetime, *, online: bool) -> dict[str, int]:
    """Write the feature tables as of then and, if asked, put them online; rows by table. Blocks."""
    from feedrank_feature_store.tables import write_features

    features = settings.place.features
    erased = ErasedSince(Lake(settings.place.lake))
    with batch_engine(settings, as_of) as engine:
        rows = write_features(engine, features, as_of)
    with only_writer(features, wait=True):
        erased.remove(features)
        if online:
            put_online(settings, as_of)
    return {table.name.lower(): num_rows for table, num_rows in rows.items()}


def put_online(settings: Settings, as_of: datetime) -> None:
    """Register the definitions and materialise readers as of then. Blocks, mostly on Feast."""
    from feature_repo.store import apply, materialise, open_store

    store = open_store(settings.place.root, settings.cache_url)
    apply(store)
    materialise(store, as_of)
    log.info("features_online", as_of=as_of.isoformat())


def audit_skew(settings: Settings, *, wait_s: float) -> Comparison:
    """Compare the stream's state, as last saved, with the batch over the same records. Blocks.

    Waits up to `wait_s` until the lake holds what the state does. Raises: AuditError.
    """
    from feedrank_feature_store.skew import compare

    if not (settings.place.stream / "data.mdb").exists():
        raise AuditError(f"{settings.place.stream} holds no state: the stream has not run here")
    lake = Lake(settings.place.lake)
    with closing(State(settings.place.stream, read_only=True)) as state:
        until: dict[str, dict[int, int]] = {topic.name: {} for topic in FOLDED}
        for (topic, partition), offset in state.positions.items():
            until[topic][partition] = offset
        _wait_for_lake(lake, until, wait_s)
        with (
            TemporaryDirectory(prefix="feedrank-skew-") as work,
            lake.connect(until=until) as connection,
        ):
            priors = read_priors(settings.place.features) or NO_PRIORS
            return compare(state, connection, Path(work), priors)


class AuditError(RuntimeError):
    """There is nothing to compare, or not yet."""


def _wait_for_lake(lake: Lake, until: Mapping[str, Mapping[int, int]], wait_s: float) -> None:
    deadline = time.monotonic() + wait_s
    while True:
        behind = 0
        for topic, ends in until.items():
            held = lake.positions(topic)
            behind += sum(max(0, end - held.get(p, 0)) for p, end in ends.items() if p >= 0)
        if not behind:
            return
        if time.monotonic() > deadline:
            raise AuditError(f"{behind} records of the state are not in the lake: is its sink up?")
        time.sleep(PAUSE_S)


def follow(settings: Settings) -> None:
    """Fold the log and show what changed until SIGTERM or SIGINT. Blocks.

    A second process of the same state folder waits until the first is gone.
    """
    stopping = stopping_on_signals()
    collect_seldom()
    metrics = Metrics("feature_store")
    stream = Stream(settings, metrics)
    with (
        probes(metrics, stream.ready, settings.host, settings.port),
        closing(open_bus(settings.bus_url)) as bus,
    ):
        folder = settings.place.stream
        while not stopping.is_set():
            try:
                with only_one(folder):
                    stream.run(bus, stopping)
                    return
            except StateInUseError as error:
                stream.trouble = f"standing by: {error}"
                stopping.wait(PAUSE_S)


class Stream:
    """The stream's threads, built once the state is ours."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._settings, self._metrics = settings, metrics
        self._parts: list[StreamFollower | OnlineWriter | OrderFollower] = []
        self.trouble: str | None = "starting"

    def ready(self) -> str | None:
        """Why something is not current, None when all is."""
        if not self._parts:
            return self.trouble
        return next((part.trouble for part in self._parts if part.trouble), None)

    def run(self, bus: Bus, stopping: Event) -> None:
        """Build the state if need be, and follow until told to stop. Blocks."""
        self.trouble = "the bus does not answer"
        _wait_for_bus(bus, stopping)
        if stopping.is_set():
            return
        self.trouble = "the state is being built from the lake"
        settings, lake = self._settings, Lake(self._settings.place.lake)
        with (
            closing(open_state(settings.place.stream, lake)) as state,
            closing(bus.publisher()) as publisher,
            sync_client(settings.cache_url, timeout_s=CACHE_TIMEOUT_S) as cache,
            bus.consumer((*FOLDED, USER_CHANGES), group=GROUP, member=_member()) as consumer,
        ):
            lock, priors = Lock(), LatestPriors(settings.place.features).get
            online = OnlineWriter(
                state, lock, CacheKeys(cache), self._open_feast, priors, self._metrics
            )
            statistics = ItemStatistics(
                state, lock, publisher, priors, self._metrics, every_s=settings.item_stats_every_s
            )
            follower = StreamFollower(
                bus,
                consumer,
                state,
                lock,
                LakeLog(lake, state),
                Orders(bus, state, lock, lake, online.forget),
                self._metrics,
                wake=online.wake.set,
                max_records=settings.max_records,
                checkpoint_s=settings.checkpoint_s,
            )
            orders = OrderFollower(
                bus,
                cache,
                settings.place.features,
                Subjects.of_lake(settings.place.lake),
                online.forget,
                member=_member(),
            )
            self._parts = [follower, online, orders]
            with _threads(stopping, online.run, statistics.run, orders.run):
                follower.run(stopping)

    def _open_feast(self) -> FeastOnline:
        return FeastOnline(self._settings.place.root, self._settings.cache_url)


@contextmanager
def _threads(stopping: Event, *loops: Callable[[Event], None]) -> Iterator[None]:
    """Run each loop in a thread; one that fails ends the process's work, and its error shows."""
    failures: list[BaseException] = []

    def guarded(loop: Callable[[Event], None]) -> None:
        try:
            loop(stopping)
        except BaseException as error:
            failures.append(error)
            stopping.set()

    threads = [Thread(target=guarded, args=(loop,)) for loop in loops]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stopping.set()
        for thread in threads:
            thread.join()
    if failures:
        raise failures[0]


def _member() -> str:
    return f"{socket.gethostname()}-{os.getpid()}"


def _wait_for_bus(bus: Bus, stopping: Event) -> None:
    while not stopping.is_set():
        try:
            bus.create_topics()
            return
        except BusUnavailableError as error:
            log.warning("waiting", reason="the bus does not answer", error=str(error))
            stopping.wait(PAUSE_S)
