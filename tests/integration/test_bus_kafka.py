# The type checker brings stubs of kafka-python 2; this is 3.
# pyright: reportArgumentType=false, reportGeneralTypeIssues=false, reportAttributeAccessIssue=false
import asyncio
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from threading import Thread

import httpx
import pytest
from feedrank_core.contracts.events import Interaction, InteractionType
from feedrank_core.contracts.topics import (
    CHANGE_REPORTS,
    INTERACTIONS,
    ITEMS,
    USER_CHANGES,
    VERDICTS,
    with_dead_letters,
)
from feedrank_core.contracts.user_changes import (
    ChangeKind,
    ChangeReport,
    Store,
    StoreState,
    UserChange,
)
from feedrank_core.runtime.bus import BusUnavailableError, Outgoing, TopicMismatchError
from feedrank_core.runtime.bus_kafka import KafkaBus
from feedrank_core.runtime.bus_kafka_connection import Connection
from feedrank_core.runtime.bus_kafka_topics import require_settings, topic_settings
from feedrank_core.runtime.lake import Lake
from feedrank_core.runtime.lake_erasure import LakeEraser
from feedrank_core.runtime.metrics import Metrics
from feedrank_ingestion.app import create_intake
from feedrank_ingestion.bus_eraser import FORGOTTEN_BY
from feedrank_ingestion.lake_sink import LakeSink
from feedrank_ingestion.order_follower import OrderFollower
from integration.bus_contract import LEASE_S, BusContract, Drop, Outage, outgoing, read
from integration.kafka_servers import (
    OwnBroker,
    TidyBus,
    admin_of,
    await_leaders,
    expire,
    require_kafka,
)
from kafka.admin import ConfigResource
from processes import free_port

TIMEOUT_S = 1.2
DAY_MS = 86_400_000
EXPIRING = (VERDICTS, USER_CHANGES)


@pytest.fixture
def url(kafka_url: str) -> str:
    return kafka_url


class TestKafkaBus(BusContract):
    @pytest.fixture
    def bus(self, url: str) -> Iterator[KafkaBus]:
        bus = TidyBus(url, lease_s=LEASE_S, timeout_s=TIMEOUT_S)
        yield bus
        bus.close()

    @pytest.fixture
    def outage(self, own_broker: OwnBroker | None) -> Outage:
        if own_broker is None:
            pytest.skip("the broker of KAFKA_BOOTSTRAP is not ours to stop")
        return own_broker.hang

    @pytest.fixture
    def drop(self, bus: KafkaBus) -> Drop:
        return partial(expire, bus)

    @pytest.fixture(autouse=True)
    def _topics(self, bus: KafkaBus) -> None:
        patient = KafkaBus(bus.url, timeout_s=30)
        patient.create_topics()
        patient.create_topics()
        patient.close()
        await_leaders(bus.url)

    def test_topics_are_as_the_contracts_say(self, bus: KafkaBus, url: str) -> None:
        name = Connection(url, timeout_s=5).name
        topics = {name(t.name): t for t in with_dead_letters().values()}
        with admin_of(url) as admin:
            described = admin.describe_topics(list(topics))
            resources = [ConfigResource("TOPIC", topic) for topic in topics]
            found = admin.describe_configs(resources, config_filter="all")["topic"]
        partitions = {one["name"]: len(one["partitions"]) for one in described}
        assert partitions == {n: t.partitions for n, t in topics.items()}
        settings = {n: {k: v["value"] for k, v in of.items()} for n, of in found.items()}
        assert settings.keys() == topics.keys()
        for topic, of in settings.items():
            policy, kept = "delete", "retention.ms"
            if topics[topic].compacted:
                policy, kept = "compact", "delete.retention.ms"
            retention_ms = int(topics[topic].retention.total_seconds() * 1000)
            assert (of["cleanup.policy"], of[kept]) == (policy, str(retention_ms)), topic
            assert of["message.timestamp.type"] == "LogAppendTime"
        days = {t: int(settings[name(t.name)]["retention.ms"]) / DAY_MS for t in EXPIRING}
        assert days == {VERDICTS: 7, USER_CHANGES: 14}

    def test_another_number_of_partitions_is_an_error_that_names_both(self, url: str) -> None:
        other = url + "-other"
        with admin_of(url) as admin:
            name = Connection(other, timeout_s=5).name(VERDICTS.name)
            admin.create_topics({name: {"num_partitions": 3, "replication_factor": 1}})
            admin.wait_for_topics([name])
        bus = TidyBus(other)
        with pytest.raises(TopicMismatchError, match=r"verdicts has 3 .* contracts say 1"):
            bus.publisher().publish(VERDICTS, outgoing(1))
        with pytest.raises(TopicMismatchError, match="verdicts has 3"):
            bus.create_topics()
        bus.close()

    @pytest.mark.parametrize(
        ("setting", "value"),
        [("cleanup.policy", "delete"), ("message.timestamp.type", "CreateTime")],
    )
    def test_a_topic_that_keeps_less_than_the_contracts_say_is_an_error(
        self, url: str, setting: str, value: str
    ) -> None:
        other = f"{url}-{setting}"
        with admin_of(url) as admin:
            name = Connection(other, timeout_s=5).name(ITEMS.name)
            settings = topic_settings(ITEMS) | {setting: value}
            made = {"num_partitions": ITEMS.partitions, "replication_factor": 1}
            admin.create_topics({name: made | {"configs": settings}})
            admin.wait_for_topics([name])
        bus = TidyBus(other)
        with pytest.raises(TopicMismatchError, match=f"items has {setting}={value} "):
            bus.create_topics()
        bus.close()

    def test_a_topic_may_keep_records_for_longer_but_not_for_less(self) -> None:
        settings = topic_settings(INTERACTIONS)
        for longer in (str(int(settings["retention.ms"]) + 1), "-1"):
            require_settings(INTERACTIONS, settings | {"retention.ms": longer})
        with pytest.raises(TopicMismatchError, match=r"retention\.ms=1000 "):
            require_settings(INTERACTIONS, settings | {"retention.ms": "1000"})

    async def test_on_it_the_intake_is_not_ready_and_the_sink_says_why(
        self, url: str, tmp_path: Path
    ) -> None:
        other = url + "-mismatched"
        with admin_of(url) as admin:
            name = Connection(other, timeout_s=5).name(INTERACTIONS.name)
            admin.create_topics({name: {"num_partitions": 3, "replication_factor": 1}})
            admin.wait_for_topics([name])
        bus = TidyBus(other)
        app = create_intake(bus)
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://intake") as client,
        ):
            answer = await client.get("/readyz")
            assert answer.status_code == 503
            assert "interactions has 3 partitions" in answer.json()["detail"]
            event = {"event_id": "e", "event_type": "click", "user_id": "u", "item_id": "i"}
            event |= {"occurred_at": "2026-01-01T00:00:00Z"}
            answer = await client.post("/v1/events", json={"events": [event]})
            assert answer.status_code == 503
        metrics = Metrics("ingestion")
        sink = LakeSink(bus=bus, lake=Lake(tmp_path), metrics=metrics, max_rows=9, max_seconds=1)
        running = Thread(target=sink.run)
        running.start()
        while "interactions has 3 partitions" not in (sink.ready() or ""):
            assert running.is_alive()
            await asyncio.sleep(0.05)
        sink.stop()
        running.join()
        bus.close()


def test_an_erasure_passes_and_says_by_when_kafka_forgets(url: str, tmp_path: Path) -> None:
    bus = TidyBus(url, timeout_s=30)
    bus.create_topics()
    at = datetime.now(UTC)
    event = Interaction(
        event_id="e1",
        user_id="needle",
        item_id="i1",
        event_type=InteractionType.CLICK,
        occurred_at=at,
        accepted_at=at,
    )
    order = UserChange(change_id="0" * 32, kind=ChangeKind.ERASE, user_id="needle", accepted_at=at)
    publisher = bus.publisher()
    for topic, message in ((INTERACTIONS, event), (USER_CHANGES, order)):
        publisher.publish(topic, [Outgoing("needle", message.model_dump_json().encode())])
    metrics, lake = Metrics("ingestion"), Lake(tmp_path)
    sink = LakeSink(bus=bus, lake=lake, metrics=metrics, max_rows=10, max_seconds=1)
    eraser = LakeEraser(lake, grace=timedelta(0))
    follower = OrderFollower(bus=bus, lake=Lake(tmp_path), eraser=eraser, metrics=metrics)
    threads = [Thread(target=part.run) for part in (sink, follower)]
    for thread in threads:
        thread.start()
    try:
        reports: dict[Store, ChangeReport] = {}
        deadline = time.monotonic() + 60
        for record in bus.broadcast(CHANGE_REPORTS):
            assert time.monotonic() < deadline
            if record is not None:
                report = ChangeReport.model_validate_json(record.value or b"")
                reports[report.store] = report
            if reports.keys() >= {Store.LAKE, Store.BUS}:
                break
    finally:
        for part in (sink, follower):
            part.stop()
        for thread in threads:
            thread.join()
    assert reports[Store.LAKE].state is StoreState.DONE
    assert reports[Store.BUS].state is StoreState.EXPIRES
    assert reports[Store.BUS].expires_at == at + FORGOTTEN_BY
    with lake.connect() as connection:
        assert connection.execute("SELECT count(*) FROM interactions").fetchone() == (0,)
    bus.close()


def test_an_absent_broker_is_an_error_in_time() -> None:
    port = free_port()
    bus = TidyBus(f"kafka://127.0.0.1:{port}", timeout_s=TIMEOUT_S)
    for call in (bus.ping, bus.create_topics, lambda: bus.publisher().publish(VERDICTS, [])):
        start = time.monotonic()
        with pytest.raises(BusUnavailableError, match=str(port)):
            call()
        assert time.monotonic() - start < 2 * TIMEOUT_S
    bus.close()


def test_a_killed_broker_loses_no_acknowledged_record(tmp_path: Path) -> None:
    require_kafka()
    server = OwnBroker(tmp_path)
    try:
        server.start()
        bus = KafkaBus(server.url, lease_s=LEASE_S)
        bus.create_topics()
        publisher = bus.publisher()
        for start in range(0, 2000, 100):
            publisher.publish(VERDICTS, outgoing(2000)[start : start + 100])
        with bus.consumer([VERDICTS], group="g", member="a") as consumer:
            consumer.commit(read(consumer, 50, commit=False)[:50])
        server.kill()
        with pytest.raises(BusUnavailableError):
            bus.ping()
        server.start()
        assert bus.end_offsets(VERDICTS) == {0: 2000}
        with bus.consumer([VERDICTS], group="g", member="b") as consumer:
            assert [r.offset for r in read(consumer, 1950)] == list(range(50, 2000))
        publisher.publish(VERDICTS, outgoing(1))
        assert bus.end_offsets(VERDICTS) == {0: 2001}
        publisher.close()
        bus.close()
    finally:
        server.kill()
