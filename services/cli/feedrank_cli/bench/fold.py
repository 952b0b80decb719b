"""Folding the bus into a state of a million readers: events a second, and what the state takes.

Events come in two shapes. In sessions, as the simulator's readers behave: each does some events
within half a minute, and as many are in a session at once as give MIN_EVENTS_PER_S together.
Scattered, every event is of another reader drawn from all: nobody behaves so, but no load of as
many readers costs more, since hardly one is found in memory and each event dirties a page of its
own. The bound holds for both. Nothing is shown online meanwhile: the marks of all readers gather.
The floor reads and decodes the same records and folds nothing.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Lock

import numpy as np
import orjson
from feedrank_core.contracts.ids import item_key
from feedrank_core.contracts.items import ItemType
from feedrank_core.contracts.topics import IMPRESSIONS, INTERACTIONS, Topic
from feedrank_core.contracts.users import Platform
from feedrank_core.runtime.bus import BusUnavailableError, Outgoing
from feedrank_core.runtime.bus_redis import RedisBus
from feedrank_core.runtime.home import Home
from feedrank_core.runtime.lake import Lake
from feedrank_core.runtime.metrics import Metrics
from feedrank_core.runtime.valkey import Role, valkey_command

from feedrank_cli.bench.report import BenchCannotRun, Report
from feedrank_cli.demo import free_ports

NAME = "fold"
HELP = "events/s folded into the stream's state, and its bytes for 1M readers"
QUICK_USERS, FULL_USERS = 50_000, 1_000_000
QUICK_EVENTS, FULL_EVENTS = 150_000, 1_000_000
NUM_ITEMS = 100_000
POPULARITY = 1.2
"""Exponent of the items' popularity: some are seen by everybody."""
ACTIONS_A_READER, SEEN_A_READER = 20, 60
"""What a reader of the state did before: a month of a few sessions a week."""
EVENTS_A_SESSION, SESSION_S = 12, 28.0
"""What the simulator's readers do on one page in the mean; a test asks it."""
COUNTRIES, PLATFORMS = ("NL", "DE", "FR", "IN"), tuple(platform.value for platform in Platform)
PAGE = 10_000
MIN_EVENTS_PER_S = 15_000
START_S = 30.0


def run(home: Home, *, quick: bool, seed: int) -> Report:
    """Fill a state, then fold what a bus holds. All below a folder of its own.

    Raises: BenchCannotRun.
    """
    try:
        from feedrank_feature_store.consumer import collect_seldom
        from feedrank_feature_store.stream.state import State, only_one
    except ImportError as error:
        raise BenchCannotRun(f"the feature store is not installed: {error}") from error
    num_users = QUICK_USERS if quick else FULL_USERS
    num_events = QUICK_EVENTS if quick else FULL_EVENTS
    report = Report(NAME, seed)
    collect_seldom()  # as `serve` does
    with (
        tempfile.TemporaryDirectory(prefix="feedrank-bench-") as name,
        _bus(Path(name) / "bus") as bus,
        only_one(Path(name) / "stream"),
        closing(State(Path(name) / "stream")) as state,
    ):
        _fill(state, num_users, seed)
        _describe(report, state, num_users)
        report.figure("events", num_events)
        floor_per_s = 0.0
        for number, (prefix, shape) in enumerate(SHAPES.items()):
            _publish(bus, shape(num_users, num_events, seed), number * num_events, seed)
            floor_per_s = floor_per_s or _floor(bus)
            cpu_s = time.process_time()
            events_per_s = _fold(bus, state, Lake(Path(name) / "lake"))
            cpu_s = time.process_time() - cpu_s
            report.figure(f"{prefix}events_per_s", events_per_s)
            report.figure(f"{prefix}cpu_us_per_event", cpu_s / num_events * 1e6)
            report.figure(f"{prefix}ratio_to_floor", events_per_s / floor_per_s)
            report.bound(f"{prefix}events_per_s", ">=", MIN_EVENTS_PER_S)
        report.figure("file_mb_after", state.num_bytes() / 1e6)
    report.floor("read_and_decoded_per_s", floor_per_s)
    return report


def _describe(report: Report, state, num_users: int) -> None:
    report.figure("users", state.entries()["users"])
    report.figure("state_mb", state.num_bytes_used() / 1e6)
    report.figure("state_bytes_per_user", state.num_bytes_used() / num_users)
    report.figure("file_mb", state.num_bytes() / 1e6)


def in_sessions(num_users: int, num_events: int, seed: int) -> np.ndarray:
    """Whose each event is, of sessions that begin as often as the bound asks. Shapes: (E,)."""
    rng = np.random.default_rng([seed, 3])
    session_E = np.arange(num_events) // EVENTS_A_SESSION
    num_sessions = session_E[-1] + 1
    began_s_S = rng.random(num_sessions) * num_events / MIN_EVENTS_PER_S
    at_s_E = began_s_S[session_E] + rng.random(num_events) * SESSION_S
    return rng.integers(0, num_users, num_sessions)[session_E[np.argsort(at_s_E)]]


def scattered(num_users: int, num_events: int, seed: int) -> np.ndarray:
    """Whose each event is, drawn from all readers. Shapes: (E,)."""
    return np.random.default_rng([seed, 4]).integers(0, num_users, num_events)


SHAPES = {"": in_sessions, "scattered_": scattered}
"""By the beginning of their figures' names."""


@contextmanager
def _bus(folder: Path) -> Iterator[RedisBus]:
    folder.mkdir(parents=True)
    [port] = free_ports(1)
    server = subprocess.Popen(
        valkey_command(Role.BUS, port=port, folder=folder), stdout=subprocess.DEVNULL
    )
    bus = RedisBus(f"redis://127.0.0.1:{port}/0")
    deadline = time.monotonic() + START_S
    try:
        while True:
            try:
                bus.ping()
                break
            except BusUnavailableError as error:
                if time.monotonic() > deadline:
                    raise BenchCannotRun(str(error)) from error
        yield bus
    finally:
        bus.close()
        server.kill()
        server.wait()


def _fill(state, num_users: int, seed: int) -> None:
    """Items, and readers with a profile, ACTIONS_A_READER actions and SEEN_A_READER items each."""
    from feedrank_feature_store.stream.counting import NUM_COLUMNS
    from feedrank_feature_store.stream.folding import Folder
    from feedrank_feature_store.stream.histories import ACTIONS, Action, pack
    from feedrank_feature_store.stream.inputs import Inputs
    from feedrank_feature_store.stream.profile_state import Profile, pack_profile
    from feedrank_feature_store.stream.state import user_key

    rng = np.random.default_rng([seed, 1])
    now_s = time.time()
    Folder(state).fold(Inputs(versions=[_version(n, int(now_s * 1e6)) for n in range(NUM_ITEMS)]))
    keys = np.array([item_key(f"item-{n}") for n in range(NUM_ITEMS)])
    for start in range(0, num_users, PAGE):
        names = [f"user-{n}" for n in range(start, min(start + PAGE, num_users))]
        users = [user_key(name) for name in names]
        places = state.users.places(state.reader, users, names)
        state.users.value[places] = rng.random((len(users), NUM_COLUMNS))
        state.users.at_us[places] = int(now_s * 1e6)
        state.users.touch(places)
        item_US = keys[rng.integers(0, NUM_ITEMS, (len(users), SEEN_A_READER))]
        for row, (user, items) in enumerate(zip(users, item_US, strict=True)):
            ids = (f"{start + row:020d}-{n:015d}".encode() for n in range(ACTIONS_A_READER))
            actions = [
                Action(int(now_s * 1e6) + n, event, int(items[n]), n % len(ACTIONS))
                for n, event in enumerate(ids)
            ]
            state.histories.put(state.reader, user, pack(actions))
            state.seen.put(state.reader, user, items.tobytes())
            country, platform = COUNTRIES[row % len(COUNTRIES)], PLATFORMS[row % len(PLATFORMS)]
            profile = Profile(names[row], country=country, platform=platform)
            state.profiles.put(user, pack_profile(profile))
        state.checkpoint(now_s=now_s)


def _version(number: int, at_us: int):
    from feedrank_feature_store.stream.catalogue_state import ItemVersion

    return ItemVersion(
        item_id=f"item-{number}",
        item_type=list(ItemType)[number % len(ItemType)].value,
        creator_id=f"creator-{number // 20}",
        category=f"category-{number % 20}",
        created_at_us=at_us,
        active=True,
        at_us=at_us,
        offset=number,
    )


def _publish(bus: RedisBus, user_E: np.ndarray, first: int, seed: int) -> None:
    """Three impressions to two views, two clicks and a like; ids are numbers from `first` on."""
    kinds = ("impression", "view", "impression", "click", "impression", "view", "like", "click")
    num_events = len(user_E)
    item_E = np.random.default_rng([seed, 2]).zipf(POPULARITY, num_events) % NUM_ITEMS
    now = datetime.now(UTC).isoformat()
    publisher = bus.publisher()
    for start in range(0, num_events, PAGE):
        pages: dict[str, tuple[Topic, list[Outgoing]]] = {
            topic.name: (topic, []) for topic in (IMPRESSIONS, INTERACTIONS)
        }
        for n in range(start, min(start + PAGE, num_events)):
            kind = kinds[n % len(kinds)]
            event = {
                "event_id": f"{first + n:036d}",
                "event_type": kind,
                "user_id": f"user-{user_E[n]}",
                "item_id": f"item-{item_E[n]}",
                "request_id": f"request-{n // 20}",
                "session_id": f"session-{n // 100}",
                "position": n % 20,
                "surface": "home",
                "occurred_at": now,
                "accepted_at": now,
            }
            event |= {"dwell_s": float(n % 40)} if kind == "view" else {}
            topic = IMPRESSIONS if kind == "impression" else INTERACTIONS
            pages[topic.name][1].append(Outgoing(event["user_id"], orjson.dumps(event)))
        for topic, records in pages.values():
            publisher.publish(topic, records)
    publisher.close()


def _floor(bus: RedisBus) -> float:
    from feedrank_feature_store.stream.inputs import FOLDED, from_records

    max_records = _default("max_records")
    started, num_records = time.perf_counter(), 0
    with bus.consumer(FOLDED, group="floor", member="floor") as consumer:
        while records := consumer.poll(max_records=max_records, timeout_s=0.1):
            num_records += len(records)
            from_records(records)
    return num_records / (time.perf_counter() - started)


def _fold(bus: RedisBus, state, lake: Lake) -> float:
    """As `serve` does: read, decode, fold, save the state and commit the bus."""
    from feedrank_feature_store.consumer import GROUP, StreamFollower
    from feedrank_feature_store.stream.inputs import FOLDED
    from feedrank_feature_store.stream.lake_log import LakeLog
    from feedrank_feature_store.stream.orders import Orders

    with bus.consumer(FOLDED, group=GROUP, member="bench") as consumer:
        lock = Lock()
        follower = StreamFollower(
            bus,
            consumer,
            state,
            lock,
            LakeLog(lake, state),
            Orders(bus, state, lock, lake, lambda user_id: None),
            Metrics("feature_store"),
            wake=Event().set,
            max_records=_default("max_records"),
            checkpoint_s=_default("checkpoint_s"),
        )
        started, num_records = time.perf_counter(), 0
        while records := follower.step():
            num_records += records
        follower.save()
    return num_records / (time.perf_counter() - started)


def _default(setting: str):
    from feedrank_feature_store.settings import Settings

    return Settings.model_fields[setting].default
