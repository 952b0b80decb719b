"""A real Kafka broker for the tests: the one that KAFKA_BOOTSTRAP names, else one of our own."""

# The type checker brings stubs of kafka-python 2; this is 3.
# pyright: reportGeneralTypeIssues=false, reportAttributeAccessIssue=false

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import kafka
import pytest
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from feedrank_core.contracts.topics import Topic, with_dead_letters
from feedrank_core.runtime.bus import BusUnavailableError
from feedrank_core.runtime.bus_kafka import KafkaBus
from feedrank_core.runtime.bus_kafka_connection import Connection
from feedrank_core.runtime.bus_kafka_publisher import KafkaPublisher
from feedrank_core.runtime.kafka_broker import (
    BrokerUnavailableError,
    KafkaBroker,
    jars,
    require_java,
)
from processes import free_port

BOOTSTRAP = os.environ.get("KAFKA_BOOTSTRAP")
START_S = 60
USER, PASSWORD = "feedrank", "between-us"


def require_kafka() -> None:
    """Skip, with the reason, where no broker can be had."""
    if not BOOTSTRAP:
        require_own_kafka()


def require_own_kafka() -> None:
    """Skip, with the reason, where no broker of our own can be started."""
    try:
        require_java()
        jars()
    except BrokerUnavailableError as error:
        named = "is not ours to set up" if BOOTSTRAP else "names no broker"
        pytest.skip(f"{error}, and KAFKA_BOOTSTRAP {named}")


class OwnBroker:
    """A broker of ours, which a test may kill, start again or make hang."""

    def __init__(self, folder: Path, broker: KafkaBroker | None = None) -> None:
        self.broker = broker or KafkaBroker(folder, free_port(), free_port())
        self.url = self.broker.url
        self.urls: dict[str, str] = {}
        self._process: subprocess.Popen | None = None

    def start(self) -> None:
        self.broker.prepare()
        with (self.broker.folder / "broker.log").open("ab") as log:
            self._process = subprocess.Popen(
                self.broker.command(), stdout=log, stderr=log, cwd=self.broker.folder
            )
        bus = KafkaBus(self.url, timeout_s=1)
        deadline = time.monotonic() + START_S
        while True:
            try:
                bus.ping()
                break
            except BusUnavailableError:
                assert self._process.poll() is None, (
                    self.broker.folder / "broker.log"
                ).read_text()[-2000:]
                assert time.monotonic() < deadline
        bus.close()

    def kill(self) -> None:
        """As `kill -9` does. Blocks until the port is free."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    @contextmanager
    def hang(self) -> Iterator[None]:
        """The broker holds its connections and answers nothing."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self._process.pid, signal.SIGCONT)


def admin_of(url: str) -> kafka.KafkaAdminClient:
    return Connection(url, timeout_s=10).built(kafka.KafkaAdminClient)


def await_leaders(url: str) -> None:
    """Returns once every partition answers.

    On a busy machine a new one has no leader for longer than a test of short patience waits.
    """
    connection = Connection(url, timeout_s=30)
    places = [
        kafka.TopicPartition(connection.name(topic.name), number)
        for topic in with_dead_letters().values()
        for number in range(topic.partitions)
    ]
    consumer = connection.built(kafka.KafkaConsumer)
    consumer.end_offsets(places)
    consumer.close()


def expire(bus: KafkaBus, topic: Topic, before: int | None = None) -> None:
    """What the broker does with records (before an offset) once their retention is over."""
    name = Connection(bus.url, timeout_s=10).name(topic.name)
    ends = bus.end_offsets(topic)
    if before is not None:
        ends = {p: min(end, before) for p, end in ends.items()}
    with admin_of(bus.url) as admin:
        admin.delete_records({kafka.TopicPartition(name, p): end for p, end in ends.items()})


class TidyBus(KafkaBus):
    """Closes the publishers that tests leave open: each has threads."""

    def publisher(self) -> KafkaPublisher:
        publisher = super().publisher()
        self._left = [*getattr(self, "_left", []), publisher]
        return publisher

    def close(self) -> None:
        for publisher in getattr(self, "_left", []):
            publisher.close()
        super().close()


def secured(folder: Path, files: Path) -> OwnBroker:
    """A broker that takes logins over TLS at urls["login"], client certificates at the other.

    `files` holds ca.pem, and server.pem with key and certificate.
    """
    login, certificate, controller = free_port(), free_port(), free_port()
    module = "org.apache.kafka.common.security"
    plain = f'{module}.plain.PlainLoginModule required username="broker" password="{PASSWORD}"'
    settings = {
        "listeners": f"LOGIN://127.0.0.1:{login},CERTIFICATE://127.0.0.1:{certificate},"
        f"CONTROLLER://127.0.0.1:{controller}",
        "advertised.listeners": f"LOGIN://127.0.0.1:{login},CERTIFICATE://127.0.0.1:{certificate}",
        "listener.security.protocol.map": "LOGIN:SASL_SSL,CERTIFICATE:SSL,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "LOGIN",
        "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512",
        "sasl.mechanism.inter.broker.protocol": "PLAIN",
        "listener.name.login.plain.sasl.jaas.config": f'{plain} user_broker="{PASSWORD}"'
        f' user_{USER}="{PASSWORD}";',
        "listener.name.login.scram-sha-512.sasl.jaas.config": f"{module}.scram.ScramLoginModule"
        " required;",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(_with_plain_key(files / "server.pem")),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(files / "ca.pem"),
        "listener.name.certificate.ssl.client.auth": "required",
    }
    user = f'SCRAM-SHA-512=[name="{USER}",password="{PASSWORD}"]'
    broker = KafkaBroker(folder, login, controller, settings, ("--add-scram", user))
    own = OwnBroker(folder, broker)
    own.urls = {"login": own.url, "certificate": f"kafka://127.0.0.1:{certificate}"}
    return own


def _with_plain_key(pem: Path) -> Path:
    """The same key and certificate, with the key as PKCS 8: all that the broker reads."""
    text = pem.read_bytes()
    key = load_pem_private_key(text, None)
    plain = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    certificate = text[text.index(b"-----BEGIN CERTIFICATE") :]
    other = pem.with_name("server-pkcs8.pem")
    other.write_bytes(plain + certificate)
    return other
