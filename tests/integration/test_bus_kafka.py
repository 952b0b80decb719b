# The type checker brings stubs of kafka-python 2; this is 3.
# pyright: reportArgumentType=false, reportGeneralTypeIssues=false, reportAttributeAccessIssue=false
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import kafka
import pytest
from feedrank_core.contracts.topics import ITEMS, VERDICTS, with_dead_letters
from feedrank_core.runtime.bus import BusUnavailableError, TopicMismatchError
from feedrank_core.runtime.bus_kafka import KafkaBus, KafkaPublisher
from feedrank_core.runtime.bus_kafka_connection import Connection
from integration.bus_contract import LEASE_S, BusContract, Outage, outgoing, read
from integration.kafka_servers import BOOTSTRAP, OwnBroker, require_kafka
from kafka.admin import ConfigResource
from processes import free_port

TIMEOUT_S = 1.2
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def own_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnBroker | None]:
    require_kafka()
    if BOOTSTRAP:
        yield None
        return
    server = OwnBroker(tmp_path_factory.mktemp("kafka"))
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture
def url(own_broker: OwnBroker | None) -> Iterator[str]:
    """An empty place on the broker: names of its own, which go afterwards."""
    base = own_broker.url if own_broker else f"kafka://{BOOTSTRAP}"
    prefix = f"test-{uuid.uuid4().hex[:8]}"
    yield f"{base}/{prefix}"
    with admin_of(base) as admin:
        ours = [name for name in admin.list_topics() if name.startswith(prefix)]
        if ours:
            admin.delete_topics(ours)


def admin_of(url: str) -> kafka.KafkaAdminClient:
    return Connection(url, timeout_s=10).built(kafka.KafkaAdminClient)


class TidyBus(KafkaBus):
    """Closes the publishers that the contract's tests leave open: each has threads."""

    def publisher(self) -> KafkaPublisher:
        publisher = super().publisher()
        self._left = [*getattr(self, "_left", []), publisher]
        return publisher

    def close(self) -> None:
        for publisher in getattr(self, "_left", []):
            publisher.close()
        super().close()


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

    @pytest.fixture(autouse=True)
    def _topics(self, bus: KafkaBus) -> None:
        patient = KafkaBus(bus.url, timeout_s=30)
        patient.create_topics()
        patient.create_topics()
        patient.close()

    def test_topics_are_as_the_contracts_say(self, bus: KafkaBus, url: str) -> None:
        name = Connection(url, timeout_s=5).name
        with admin_of(url) as admin:
            names = {name(t) for t in with_dead_letters()}
            assert names <= set(admin.list_topics())
            for topic, wanted in (
                (ITEMS, {"cleanup.policy": "compact"}),
                (VERDICTS, {"cleanup.policy": "delete", "retention.ms": "604800000"}),
            ):
                resource = ConfigResource("TOPIC", name(topic.name))
                found = str(admin.describe_configs([resource], config_filter="all"))
                for key, value in wanted.items():
                    assert key in found
                    assert value in found

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
