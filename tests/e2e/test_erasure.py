"""A reader who is erased is nowhere, whatever is killed meanwhile; one who is merged is another."""

import contextlib
import json
import os
import time
from datetime import datetime

import httpx
import pyarrow.parquet as pq
import pytest
import redis
from feedrank_cli.demo import free_ports
from feedrank_cli.show import like, look, rare_items, two_readers
from feedrank_cli.up import BusKind, with_bus
from feedrank_core.contracts.features import Table
from feedrank_core.contracts.topics import TOPICS
from feedrank_core.contracts.user_changes import STREAM_GROUP, ChangeKind, Store, stores_of
from feedrank_core.runtime.bus import Outgoing
from feedrank_core.runtime.bus_open import is_kafka, open_bus
from feedrank_core.runtime.lake import Lake
from feedrank_core.runtime.subjects import KEY_FILE
from feedrank_feature_store.app import audit_skew
from feedrank_feature_store.settings import Settings as FeatureStoreSettings
from feedrank_feature_store.stream.inputs import FOLDED
from feedrank_ingestion.bus_eraser import FORGOTTEN_BY
from integration.kafka_servers import require_own_kafka
from machine import Machine

pytestmark = [pytest.mark.long, pytest.mark.timeout(1_500)]
WORLD = ("--users", "300", "--items", "800", "--days", "6", "--seed", "5")
NEEDLE, ANON = "reader-with-a-needle", "reader-with-no-name"
PATIENCE_S = 300
DAY_S = 1_200
DAILY = ("daily", "--epochs", "1")


@pytest.fixture(scope="module", params=BusKind)
def machine(request, tmp_path_factory):
    if request.param is BusKind.KAFKA:
        require_own_kafka()
    machine = Machine(tmp_path_factory.mktemp("erasure"), {"FEEDRANK_LAKE_ERASE_GRACE_HOURS": "0"})
    machine.settings = with_bus(machine.settings, request.param).model_copy(
        update={"kafka_controller_port": free_ports(1)[0]}
    )
    try:
        machine.feedrank("up")
        yield machine
    finally:
        machine.supervisor.stop()


@pytest.fixture
def bus(machine):
    bus = open_bus(machine.settings.bus_url)
    yield bus
    bus.close()


@pytest.fixture(scope="module")
def lived(machine, tmp_path_factory):
    """A world's day in which both readers did something, were ranked for and served."""
    world = str(tmp_path_factory.mktemp("world"))
    machine.feedrank("simulate", "bulk", "--out", world, *WORLD)
    machine.feedrank("import", "parquet", world)
    machine.feedrank(*DAILY, timeout=DAY_S)
    other = look(machine.settings, two_readers(machine.settings)[0])
    _, items = rare_items(machine.settings, other)
    for user in (NEEDLE, ANON):
        url = intake(machine, f"/v1/users/{user}")
        assert httpx.put(url, json={"country": "SE"}, trust_env=False).status_code == 202
        like(machine.settings, user, items)
    machine.feedrank(*DAILY, timeout=DAY_S)
    for user in (NEEDLE, ANON):
        assert look(machine.settings, user).items
    machine.feedrank("feed", NEEDLE)
    wait_until(lambda: f"seen:{NEEDLE}" in places(machine, NEEDLE))
    return items


def intake(machine, path):
    return f"http://{machine.settings.host}:{machine.settings.ingestion_port}{path}"


def wait_until(is_so):
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def places(machine, user):
    """Every file below the home and every key of bus and cache that holds the reader's id.

    Of the stream's state what is read of it: its file's free space is nobody's to read. Nothing of
    Kafka's, which forgets by its retention.
    """
    found = []
    place, servers = machine.settings.place, [machine.settings.cache_url]
    if not is_kafka(machine.settings.bus_url):
        servers.append(machine.settings.bus_url)
    for path in place.root.rglob("*"):
        if path.parent == place.stream or place.run / "kafka" in path.parents:
            continue
        # What a service removes while we look holds nothing any more.
        with contextlib.suppress(FileNotFoundError):
            if path.is_file() and not path.is_socket() and user.encode() in path.read_bytes():
                found.append(str(path.relative_to(place.root)))
    found += [name for name in map(_packed(machine, user), _parquet_files(machine)) if name]
    for url in servers:
        with redis.Redis.from_url(url) as client:
            found += [name for name in map(_shown, client.scan_iter()) if user in name]
            found += _values_with(client, user)
    return found


def _parquet_files(machine):
    return machine.settings.place.root.rglob("*.parquet")


def _packed(machine, user):
    """Finds the reader in a column, which no search of a compressed file's bytes would."""

    def name_of(path):
        with contextlib.suppress(FileNotFoundError):
            columns = pq.ParquetFile(path).read().columns
            if any(user in str(c.to_pylist()) for c in columns):
                return f"{path.relative_to(machine.settings.place.root)} (packed)"
        return ""

    return name_of


def _shown(name):
    return name.decode(errors="replace")


def _values_with(client, user):
    readers = {
        b"stream": lambda key: client.xrange(key),
        b"hash": lambda key: client.hgetall(key),
        b"string": lambda key: client.get(key),
        b"zset": lambda key: client.zrange(key, 0, -1),
    }
    return [
        f"{_shown(key)} (value)"
        for key in client.scan_iter()
        if (read := readers.get(client.type(key))) and user in repr(read(key))
    ]


def receipt(machine, known_by):
    return json.loads(machine.feedrank("user", "receipt", known_by, "--json"))


def states(machine, known_by):
    return {line["store"]: line["state"] for line in receipt(machine, known_by)["stores"]}


def kill(machine, service):
    pid = machine.supervisor.states()[service]["pid"]
    if pid:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, 9)


def records_of(bus, user):
    """What the bus holds of a reader by now."""
    return [r for r in _everything(bus) if r.key == user and r.value is not None]


def _everything(bus):
    for topic in TOPICS.values():
        for record in bus.broadcast(topic, offsets=dict.fromkeys(range(topic.partitions), 0)):
            if record is None:
                break
            yield record


def replay(bus, records):
    """The same records once more, as from a backup of the bus."""
    publisher = bus.publisher()
    for record in records:
        publisher.publish(TOPICS[record.topic], [Outgoing(record.key, record.value)])
    publisher.close()


def is_folded(bus):
    return all(bus.committed(t, group=STREAM_GROUP) == bus.end_offsets(t) for t in FOLDED)


def test_an_erased_reader_is_in_no_file_and_no_key_although_everything_is_killed(
    machine, bus, lived
):
    before = places(machine, NEEDLE)
    assert any("lake/user_keys" in place for place in before)
    assert any(place.startswith("cand:") for place in before)
    assert any(place.startswith("served:") for place in before)
    replayed = records_of(bus, NEEDLE)
    assert replayed
    machine.feedrank("user", "erase", NEEDLE)
    for service in ("lake_sink", "feature_store", "bus", "lake_sink", "ingestion", "cache"):
        kill(machine, service)
        time.sleep(0.3)  # each is killed at another point of the work, not at its start alone
    machine.feedrank("up")
    said = machine.feedrank("user", "receipt", NEEDLE, "--wait", timeout=PATIENCE_S + 20)
    assert "pending" not in said
    # Kafka cannot remove a record, and says by when it is gone.
    expiring = {Store.BUS: "expires"} if is_kafka(machine.settings.bus_url) else {}
    wait_until(lambda: states(machine, NEEDLE) == dict.fromkeys(Store, "done") | expiring)
    if expiring:
        assert_expires(receipt(machine, NEEDLE))
        assert "gone by" in machine.feedrank("user", "receipt", NEEDLE)
    assert places(machine, NEEDLE) == []
    assert (machine.settings.place.lake / KEY_FILE).exists()

    replay(bus, replayed)
    machine.feedrank(*DAILY, timeout=DAY_S)
    assert NEEDLE not in readers_of_tables(machine)
    held = [p for p in places(machine, NEEDLE) if "run/bus" not in p and not p.startswith("s:")]
    assert [p for p in held if not p.startswith("h:users")] == []
    with Lake(machine.settings.place.lake).connect() as lake:
        for view in ("impressions", "interactions", "users", "slates"):
            query = f"SELECT count(*) FROM {view} WHERE user_id = '{NEEDLE}'"
            assert lake.execute(query).fetchone() == (0,)


def assert_expires(found):
    [line] = [line for line in found["stores"] if line["store"] == Store.BUS]
    accepted_at = datetime.fromisoformat(found["accepted_at"])
    assert datetime.fromisoformat(line["expires_at"]) == accepted_at + FORGOTTEN_BY


def test_who_comes_back_is_somebody_new_and_is_ranked_for_again(machine, lived):
    like(machine.settings, NEEDLE, lived[:3])
    machine.feedrank(*DAILY, timeout=DAY_S)
    users = pq.read_table(machine.settings.place.features / Table.USERS.value).to_pylist()
    [reader] = [row for row in users if row["user_id"] == NEEDLE]
    assert reader["likes_forever"] == 3
    assert reader["country"] == "unknown"


def test_a_merged_reader_has_nothing_and_the_other_has_both_although_stores_are_killed(
    machine, bus, lived
):
    known = next(user for user in two_readers(machine.settings) if user != ANON)
    before, replayed = len(likes(machine, known)), records_of(bus, ANON)
    assert replayed
    order = json.loads(machine.feedrank("user", "merge", ANON, known, "--json"))["receipt_id"]
    for service in ("lake_sink", "feature_store"):
        kill(machine, service)
    machine.feedrank("up")
    done = dict.fromkeys(stores_of(ChangeKind.MERGE), "done")
    wait_until(lambda: states(machine, order) == done)
    assert len(likes(machine, ANON)) == 0
    assert len(likes(machine, known)) == before + len(lived)
    held = [p for p in places(machine, ANON) if not p.startswith(("s:", "h:"))]
    assert [p for p in held if "lake" not in p and "run/bus" not in p] == []

    replay(bus, replayed)
    machine.feedrank(*DAILY, timeout=DAY_S)
    wait_until(lambda: is_folded(bus))
    assert states(machine, order) == done
    assert ANON not in readers_of_tables(machine)
    assert len(likes(machine, known)) == before + len(lived)
    assert readers_who_differ(machine) == []
    seen = look(machine.settings, known)
    assert not {*lived} & {*seen.items}


def readers_who_differ(machine):
    """By stream and batch. The counters of items keep what an erased reader did."""
    settings = FeatureStoreSettings(home=machine.settings.place.root)
    return [d for d in audit_skew(settings, wait_s=PATIENCE_S).told if d.kind == "user"]


def likes(machine, user):
    with Lake(machine.settings.place.lake).connect() as lake:
        query = "SELECT item_id FROM interactions WHERE user_id = ? AND event_type = 'like'"
        return lake.execute(query, [user]).fetchall()


def readers_of_tables(machine):
    found = set()
    for table in Table:
        path = machine.settings.place.features / table.value
        if "user_id" in pq.read_schema(path).names:
            found |= set(pq.read_table(path, columns=["user_id"])["user_id"].to_pylist())
    return found
