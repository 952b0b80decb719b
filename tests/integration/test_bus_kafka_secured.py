"""Kafka with TLS and with logins, on a real broker: what gets in, and what is kept out and how."""

# The type checker brings stubs of kafka-python 2; this is 3.
# pyright: reportArgumentType=false
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from feedrank_core.contracts.topics import VERDICTS
from feedrank_core.runtime.bus import BusUnavailableError
from feedrank_core.runtime.bus_kafka import KafkaBus
from integration.bus_contract import outgoing, read
from integration.kafka_servers import PASSWORD, USER, OwnBroker, require_own_kafka, secured

TIMEOUT_S = 3.0

LOGIN = {"SECURITY_PROTOCOL": "SASL_SSL", "SASL_USERNAME": USER, "SASL_PASSWORD": PASSWORD}
CERTIFICATE = {"SECURITY_PROTOCOL": "SSL"}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ca.pem, a client's cert.pem and key.pem, and other.pem of an authority nobody trusts."""
    folder = tmp_path_factory.mktemp("certificates")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    trustme.CA().cert_pem.write_to_path(folder / "other.pem")
    client = authority.issue_cert("client@feedrank.test")
    client.private_key_pem.write_to_path(folder / "key.pem")
    client.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    server = authority.issue_cert("127.0.0.1")
    server.private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
    return folder


@pytest.fixture(scope="module")
def server(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnBroker]:
    require_own_kafka()
    own = secured(tmp_path_factory.mktemp("kafka"), files)
    try:
        with pytest.MonkeyPatch.context() as patch:
            tell(patch, LOGIN | {"SASL_MECHANISM": "PLAIN"}, files)
            own.start()
        yield own
    finally:
        own.kill()


def tell(patch: pytest.MonkeyPatch, settings: dict[str, str], files: Path) -> None:
    for name, value in ({"CA_FILE": str(files / "ca.pem")} | settings).items():
        patch.setenv(f"FEEDRANK_KAFKA_{name}", value)


@pytest.mark.parametrize(
    ("settings", "listener"),
    [
        (LOGIN | {"SASL_MECHANISM": "PLAIN"}, "login"),
        (LOGIN | {"SASL_MECHANISM": "SCRAM-SHA-512"}, "login"),
        (CERTIFICATE, "certificate"),
    ],
    ids=["plain", "scram", "certificate"],
)
def test_who_proves_who_he_is_publishes_and_reads(
    server: OwnBroker,
    files: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, str],
    listener: str,
    request: pytest.FixtureRequest,
) -> None:
    if listener == "certificate":
        settings = settings | {
            "CERT_FILE": str(files / "cert.pem"),
            "KEY_FILE": str(files / "key.pem"),
        }
    tell(monkeypatch, settings, files)
    bus = KafkaBus(f"{server.urls[listener]}/{request.node.callspec.id}", timeout_s=30)
    bus.create_topics()
    publisher = bus.publisher()
    publisher.publish(VERDICTS, outgoing(5))
    with bus.consumer([VERDICTS], group="g", member="a") as consumer:
        assert [r.offset for r in read(consumer, 5)] == [0, 1, 2, 3, 4]
    publisher.close()
    bus.close()


@pytest.mark.parametrize(
    ("change", "listener"),
    [
        ({"SASL_PASSWORD": "guessed"}, "login"),
        ({"SASL_MECHANISM": "SCRAM-SHA-512", "SASL_USERNAME": "stranger"}, "login"),
        ({"CA_FILE": "other.pem"}, "login"),
        ({"SECURITY_PROTOCOL": "PLAINTEXT"}, "login"),
        (CERTIFICATE, "certificate"),
    ],
    ids=["password", "user", "authority", "plaintext", "no-certificate"],
)
def test_who_does_not_is_told_in_time(
    server: OwnBroker,
    files: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, str],
    listener: str,
) -> None:
    if "CA_FILE" in change:
        change = {"CA_FILE": str(files / change["CA_FILE"])}
    tell(monkeypatch, LOGIN | {"SASL_MECHANISM": "PLAIN"} | change, files)
    bus = KafkaBus(server.urls[listener], timeout_s=TIMEOUT_S)
    publisher = bus.publisher()
    for call in (bus.ping, lambda: publisher.publish(VERDICTS, outgoing(1))):
        start = time.monotonic()
        with pytest.raises(BusUnavailableError):
            call()
        assert time.monotonic() - start < 4 * TIMEOUT_S
    publisher.close()
    bus.close()
