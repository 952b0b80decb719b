"""How every Kafka client of ours connects: addresses, patience, TLS and SASL."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

from kafka.errors import KafkaError
from kafka.net.compat import KafkaNetClient
from pydantic import SecretStr
from pydantic_settings import SettingsConfigDict

from feedrank_core.runtime.bus import BusUnavailableError
from feedrank_core.runtime.settings import StartSettings, masked

MAX_RECORD_BYTES = 4 << 20
"""The intake takes bodies of 1 MiB, and a dead letter holds a record in base64."""
RECONNECT_MAX_MS = 500
"""The library's 30 s keep clients away for 6-20 s after a broker's restart; this for 0.5-1 s."""

Client = TypeVar("Client")


class Security(StartSettings):
    """`FEEDRANK_KAFKA_*`: how to prove who we are. Without any: plain text, as on one machine."""

    model_config = SettingsConfigDict(
        env_prefix="FEEDRANK_KAFKA_", frozen=True, extra="ignore", use_attribute_docstrings=True
    )

    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """How connections are made."""
    ca_file: Path | None = None
    """PEM; who signed the brokers' certificates."""
    cert_file: Path | None = None
    """PEM; our certificate, where brokers ask for one."""
    key_file: Path | None = None
    """PEM; the certificate's key."""
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    """How we log in."""
    sasl_username: str | None = None
    """Who we are."""
    sasl_password: SecretStr | None = None
    """And how we prove it."""
    replication: int = -1
    """Of the topics we create; -1 leaves it to the broker."""

    def options(self) -> dict[str, Any]:
        """As kafka-python names them."""
        password = self.sasl_password
        options = {
            "security_protocol": self.security_protocol,
            "ssl_cafile": self.ca_file and str(self.ca_file),
            "ssl_certfile": self.cert_file and str(self.cert_file),
            "ssl_keyfile": self.key_file and str(self.key_file),
            "sasl_mechanism": self.sasl_mechanism,
            "sasl_plain_username": self.sasl_username,
            "sasl_plain_password": password and password.get_secret_value(),
        }
        return {name: value for name, value in options.items() if value is not None}


class Connection:
    """Where a Kafka is, and what our topics and groups are called there.

    The path of the URL is a prefix of every name, so that several installations share a cluster.
    Raises: ValueError for a URL without a host; SystemExit naming a `FEEDRANK_KAFKA_*` that is
    wrong.
    """

    def __init__(self, url: str, *, timeout_s: float) -> None:
        parts = urlsplit(url)
        if parts.scheme != "kafka" or not parts.netloc:
            wanted = "kafka://host:port[,host:port]/[prefix]"
            raise ValueError(f"a Kafka URL is {wanted}, not {masked(url)!r}")
        self.servers = [s if ":" in s else f"{s}:9092" for s in parts.netloc.split(",")]
        self.timeout_s = timeout_s
        self.security = Security.at_start()
        self._prefix = parts.path.strip("/")

    @property
    def timeout_ms(self) -> int:
        """How long any call may wait for the brokers."""
        return int(self.timeout_s * 1000)

    def name(self, ours: str) -> str:
        """What a topic or group of ours is called there."""
        return f"{self._prefix}.{ours}" if self._prefix else ours

    def built(
        self, client: Callable[..., Client], *, timeout_s: float | None = None, **options: Any
    ) -> Client:
        """A connected client. Raises: KafkaError, OSError; then nothing of it is left.

        The library leaves a thread and sockets behind for each client that could not connect.
        """
        timeout_s = timeout_s or self.timeout_s
        self._require_a_listener(timeout_s)
        inner: list[KafkaNetClient] = []

        def keep(**config: Any) -> KafkaNetClient:
            inner.append(KafkaNetClient(**config))
            return inner[-1]

        try:
            return client(
                bootstrap_servers=self.servers,
                bootstrap_timeout_ms=int(timeout_s * 1000),
                request_timeout_ms=int(timeout_s * 1000),
                reconnect_backoff_max_ms=RECONNECT_MAX_MS,
                kafka_client=keep,
                **self.security.options(),
                **options,
            )
        except BaseException:
            for left in inner:
                with suppress(Exception):
                    left._net.stop(timeout_ms=1000)
                with suppress(Exception):
                    left.close()
            raise

    def _require_a_listener(self, timeout_s: float) -> None:
        refused: OSError = OSError("no server is named")
        for server in self.servers:
            host, _, port = server.rpartition(":")
            try:
                socket.create_connection((host.strip("[]"), int(port)), timeout_s).close()
                return
            except OSError as error:
                refused = error
        raise refused

    @contextmanager
    def translated(self) -> Iterator[None]:
        """The library's errors as the port's."""
        try:
            yield
        except (KafkaError, OSError) as error:
            reason = str(error) or type(error).__name__
            servers = ",".join(self.servers)
            raise BusUnavailableError(f"Kafka at {servers} did not answer: {reason}") from error
