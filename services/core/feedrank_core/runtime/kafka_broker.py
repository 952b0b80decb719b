"""One real Kafka broker for one machine: where its jars come from and how it is started.

The jars are fetched once by Maven, from whatever repositories it is configured with, into a
folder outside the clone. KRaft, one node, broker and controller in one process.
"""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from fcntl import LOCK_EX, flock
from pathlib import Path

KAFKA_VERSION = "4.4.0"
LOG4J_VERSION = "2.25.5"
FETCH_TIMEOUT_S = 600
JAVA_OPTIONS = ("-Xms256m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")

POM = f"""\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>feedrank</groupId><artifactId>broker</artifactId><version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId>
      <version>{KAFKA_VERSION}</version>
    </dependency>
    <dependency>
      <groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId>
      <version>{LOG4J_VERSION}</version>
    </dependency>
  </dependencies>
</project>
"""

PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.quorum.bootstrap.servers=127.0.0.1:{controller_port}
log.dirs={data}
auto.create.topics.enable=false
num.partitions=1
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
# One machine: nobody waits for further members, and a killed broker's own old registration,
# which a restart has to outwait, ends soon.
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=1500
broker.heartbeat.interval.ms=300
log.index.size.max.bytes=1048576
"""


class BrokerUnavailableError(RuntimeError):
    """No broker can be started here; the message says what is missing and the remedy."""


def cache_folder() -> Path:
    """Where the jars are kept: `XDG_CACHE_HOME`, else `~/.cache`."""
    root = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(root) / "feedrank" / f"kafka-{KAFKA_VERSION}"


def require_java() -> str:
    """Path of `java`. Raises: BrokerUnavailableError."""
    java = shutil.which("java")
    if java is None:
        raise BrokerUnavailableError("no `java` found; install Java 17 or newer")
    return java


def are_fetched() -> bool:
    """Whether the jars are in the cache."""
    return (cache_folder() / "lib").is_dir()


def jars() -> Path:
    """The folder of the broker's jars, fetched if need be. Blocks: some 20 s the first time.

    Raises: BrokerUnavailableError.
    """
    root = cache_folder()
    whole = root / "lib"
    if whole.is_dir():
        return whole
    maven = shutil.which("mvn")
    if maven is None:
        raise BrokerUnavailableError(f"no `mvn` found to fetch Kafka {KAFKA_VERSION} with")
    root.mkdir(parents=True, exist_ok=True)
    with _locked(root / "lock"):
        if whole.is_dir():
            return whole
        (root / "pom.xml").write_text(POM)
        part = root / "part"
        shutil.rmtree(part, ignore_errors=True)
        command = [maven, "-q", "-B", "-f", str(root / "pom.xml")]
        command += ["dependency:copy-dependencies", "-DincludeScope=runtime"]
        command += [f"-DoutputDirectory={part}"]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=FETCH_TIMEOUT_S)
        except subprocess.CalledProcessError as error:
            said = (error.stdout + error.stderr).decode(errors="replace").strip()[-600:]
            raise BrokerUnavailableError(f"Maven cannot fetch Kafka: {said}") from error
        except subprocess.TimeoutExpired as error:
            raise BrokerUnavailableError(f"Maven took over {FETCH_TIMEOUT_S} s") from error
        # Renamed only when whole, so that an interrupted download is not taken for one.
        part.rename(whole)
    return whole


@dataclass(frozen=True)
class KafkaBroker:
    """A broker that listens on 127.0.0.1 and keeps its data below `folder`.

    `settings` stand above PROPERTIES; `format_options` are what its storage is formatted with.
    """

    folder: Path
    port: int
    controller_port: int
    settings: Mapping[str, str] = field(default_factory=dict)
    format_options: tuple[str, ...] = ()

    @property
    def url(self) -> str:
        """The bus URL of this broker."""
        return f"kafka://127.0.0.1:{self.port}"

    def prepare(self) -> None:
        """Write the settings and format the folder once; data that is there stays.

        Blocks: 2 s the first time. Raises: BrokerUnavailableError.
        """
        data = self.folder / "data"
        data.mkdir(parents=True, exist_ok=True)
        text = PROPERTIES.format(port=self.port, controller_port=self.controller_port, data=data)
        own = "".join(f"{name}={value}\n" for name, value in self.settings.items())
        self._properties.write_text(text + own)
        if (data / "meta.properties").exists():
            return
        format_it = [*self._java("kafka.tools.StorageTool"), "format", "--standalone"]
        format_it += ["--ignore-formatted", "-t", _cluster_id(), "-c", str(self._properties)]
        format_it += self.format_options
        done = subprocess.run(format_it, capture_output=True, text=True, timeout=60)
        if done.returncode:
            said = (done.stdout + done.stderr).strip()[-600:]
            raise BrokerUnavailableError(f"Kafka cannot use {data}: {said}")

    def command(self) -> list[str]:
        """Runs the prepared broker in the foreground. Raises: BrokerUnavailableError."""
        return [*self._java("kafka.Kafka"), str(self._properties)]

    @property
    def _properties(self) -> Path:
        return self.folder / "server.properties"

    def _java(self, main: str) -> list[str]:
        return [require_java(), *JAVA_OPTIONS, "-cp", f"{jars()}/*", main]


def _cluster_id() -> str:
    """A random id; one that began with a hyphen would be read as an option."""
    while True:
        found = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not found.startswith("-"):
            return found


def main(arguments: list[str]) -> None:
    """Become the broker: `FOLDER PORT CONTROLLER_PORT`. Never returns."""
    folder, port, controller_port = arguments
    broker = KafkaBroker(Path(folder), int(port), int(controller_port))
    broker.prepare()
    command = broker.command()
    os.chdir(broker.folder)
    os.execv(command[0], command)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        flock(lock, LOCK_EX)
        yield


if __name__ == "__main__":
    main(sys.argv[1:])
