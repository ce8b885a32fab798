"""A real Apache Kafka broker from its published artifacts: one node, KRaft, on loopback, small heap.

Used by the tests of the Kafka connector and of intake from streams. The version
is that of `kafka/pom.xml`; its libraries are fetched once into a cache folder.
`kill` and `start` again keep data and ports, as a crashed broker would.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import socket
import subprocess
import tempfile
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from uuid import uuid4

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from testbed import TestbedError
from testbed.ports import start_on_free_ports
from testbed.supervisor import Process, Supervisor
from testbed.waiting import NotYet, wait_for

POM = Path(__file__).parent / "kafka" / "pom.xml"
_READY_SECONDS = 60.0
_ANSWER_SECONDS = 15.0
_JVM = (
    "-Xms64m",
    "-Xmx256m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
)


def kafka_version() -> str:
    """The version that `kafka/pom.xml` asks for, such as `4.4.0`."""
    found = re.search(r"<kafka\.version>([^<]+)</kafka\.version>", POM.read_text())
    if found is None:
        raise TestbedError(f"{POM} names no kafka.version")
    return found.group(1)


def kafka_cache() -> Path:
    """Where the broker's libraries are kept, one folder for each version."""
    root = os.environ.get("HEAL_TESTBED_CACHE")
    return (Path(root) if root else Path.home() / ".cache" / "heal-testbed") / f"kafka-{kafka_version()}"


def ensure_kafka(tell: Callable[[str], None] = print) -> Path:
    """The folder with the broker's libraries: from the cache, else fetched now (some 45 MB, once).

    Raises `TestbedError` when Java or Maven is missing, or when Maven fails.
    """
    _program("java")
    folder = kafka_cache()
    stamp = folder / "pom.sha256"
    wanted = hashlib.sha256(POM.read_bytes()).hexdigest()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.exists() or stamp.read_text() != wanted:
            _fetch(folder / "libs", tell)
            stamp.write_text(wanted)
    return folder / "libs"


def _fetch(libraries: Path, tell: Callable[[str], None]) -> None:
    tell(f"fetching Apache Kafka {kafka_version()} into {libraries}; this happens once")
    shutil.rmtree(libraries, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="heal-kafka-") as project:
        shutil.copy(POM, project)  # Maven writes beside it
        done = subprocess.run(
            [
                *(_program("mvn"), "-B", "-q", "dependency:copy-dependencies"),
                *("-DincludeScope=runtime", f"-DoutputDirectory={libraries}"),
            ],
            cwd=project,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    if done.returncode != 0:
        raise TestbedError(f"mvn dependency:copy-dependencies failed:\n{done.stdout[-4000:]}")


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise TestbedError(
            f"{name} not found: apt-get install --no-install-recommends default-jre-headless maven"
        )
    return found


class KafkaBroker:
    """One broker with a folder of its own. A context manager: started on entry, gone on exit."""

    def __init__(
        self,
        *,
        folder: Path,
        supervisor: Supervisor | None = None,
        settings: Mapping[str, str] | None = None,
        client: Mapping[str, str] | None = None,
    ) -> None:
        """Without a supervisor it gets its own.

        `settings` are added to the broker's properties (its listener for clients
        is called `CLIENTS`); `client` is what a client needs then, to get in.
        """
        self._folder = folder
        self._own_supervisor = Supervisor() if supervisor is None else None
        self._supervisor = supervisor or self._own_supervisor
        self._settings = dict(settings or {})
        self._client = dict(client or {})
        self._process: Process | None = None
        self._ports: tuple[int, ...] = ()

    def __enter__(self) -> KafkaBroker:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def address(self) -> str:
        """`host:port` for clients; the same for the whole life of this object."""
        if not self._ports:
            raise TestbedError("the Kafka broker was never started")
        return f"127.0.0.1:{self._ports[0]}"

    def start(self) -> None:
        """Return when it answers; on the data and ports of its last run, if there was one."""
        if self._process is not None and self._process.exit_code() is None:
            raise TestbedError("the Kafka broker runs already")
        libraries = ensure_kafka()
        if self._ports:
            self._run(libraries)
        else:
            start_on_free_ports(2, lambda ports: self._first_start(libraries, ports), self._abandon)

    def kill(self) -> None:
        """kill -9: nothing is flushed and no client is informed."""
        if self._process is not None:
            self._process.stop()

    def stop(self, grace_seconds: float = 20.0) -> None:
        """A clean shutdown. Safe to repeat."""
        if self._process is not None:
            self._process.stop(grace_seconds)

    def restart(self) -> None:
        """kill -9, and up again on the same data and ports."""
        self.kill()
        self.start()

    def close(self) -> None:
        """Gone for good; the folder stays. Safe to repeat."""
        if self._own_supervisor is not None:
            self._own_supervisor.close()
        else:
            self.kill()

    def check(self) -> None:
        """Raise `TestbedError`, with the end of its log, when it has died by itself."""
        if self._process is not None:
            self._process.check()

    def create_topic(
        self, name: str, *, partitions: int = 1, settings: Mapping[str, str] | None = None
    ) -> None:
        """Create it, and return when its partitions have a leader."""
        admin = self._admin()
        topic = NewTopic(name, num_partitions=partitions, replication_factor=1, config=dict(settings or {}))
        try:
            admin.create_topics([topic], request_timeout=_ANSWER_SECONDS)[name].result()
        except KafkaException as error:
            raise TestbedError(f"cannot create the topic {name}: {error}") from error
        wait_for(f"a leader for {name}", lambda: _led(admin, name), timeout_seconds=_ANSWER_SECONDS)

    # -------------------------------------------------------------- starting

    def _first_start(self, libraries: Path, ports: tuple[int, ...]) -> None:
        self._ports = ports
        self._folder.mkdir(parents=True, exist_ok=True)
        self._configuration.write_text(self._properties(ports))
        done = subprocess.run(
            [
                *self._java(libraries, "kafka.tools.StorageTool"),
                *("format", "--standalone", f"--cluster-id={_cluster_id()}"),
                *("--config", str(self._configuration)),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise TestbedError(f"formatting Kafka's storage failed:\n{done.stdout[-4000:]}")
        self._run(libraries)

    def _abandon(self) -> None:
        self.kill()
        self._ports = ()
        shutil.rmtree(self._folder / "data", ignore_errors=True)

    def _run(self, libraries: Path) -> None:
        log = self._folder / "kafka.log"
        log.unlink(missing_ok=True)
        if self._supervisor is None:
            raise TestbedError("the Kafka broker has no supervisor")
        command = [
            *("env", "--default-signal=TERM"),  # ignored by the supervisor, and so by Java, which asks for it
            *self._java(libraries, "kafka.Kafka"),
            str(self._configuration),
        ]
        self._process = self._supervisor.start("kafka", command, log=log)
        wait_for("Kafka to answer", self._answers, timeout_seconds=_READY_SECONDS)

    def _answers(self) -> bool | NotYet:
        try:
            self.check()
        except TestbedError as error:
            raise TestbedError(
                str(error).replace("Address already in use", "address already in use")
            ) from error
        host, port = self.address.split(":")
        try:
            socket.create_connection((host, int(port)), timeout=1).close()
            brokers = self._admin().list_topics(timeout=2).brokers
        except (OSError, KafkaException) as error:
            return NotYet(str(error))
        return True if brokers else NotYet("no broker is registered")

    def _admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.address, "log_level": 0, **self._client})

    @property
    def _configuration(self) -> Path:
        return self._folder / "server.properties"

    def _java(self, libraries: Path, main_class: str) -> list[str]:
        return [_program("java"), *_JVM, "-cp", f"{libraries}/*", main_class]

    def _properties(self, ports: tuple[int, ...]) -> str:
        clients, controller = ports
        properties = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "listeners": f"CLIENTS://127.0.0.1:{clients},CONTROLLER://127.0.0.1:{controller}",
            "advertised.listeners": f"CLIENTS://127.0.0.1:{clients}",
            "listener.security.protocol.map": "CLIENTS:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name": "CLIENTS",
            "controller.listener.names": "CONTROLLER",
            "controller.quorum.bootstrap.servers": f"127.0.0.1:{controller}",
            "log.dirs": str(self._folder / "data"),
            # After a crash the broker may register again only when its old session is over.
            "broker.session.timeout.ms": "3000",
            "broker.heartbeat.interval.ms": "500",
            "auto.create.topics.enable": "false",
            "num.partitions": "1",
            "default.replication.factor": "1",
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "4",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "transaction.state.log.num.partitions": "2",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            "group.initial.rebalance.delay.ms": "0",
            "group.min.session.timeout.ms": "1000",
            "num.network.threads": "2",
            "num.io.threads": "2",
            "log.cleaner.dedupe.buffer.size": "8388608",
            **self._settings,
        }
        return "".join(f"{name}={value}\n" for name, value in properties.items())


def _cluster_id() -> str:
    """Kafka writes its ids as URL-safe base64 of a UUID."""
    return urlsafe_b64encode(uuid4().bytes).rstrip(b"=").decode()


def _led(admin: AdminClient, topic: str) -> bool | NotYet:
    try:
        found = admin.list_topics(topic, timeout=2).topics[topic]
    except KafkaException as error:
        return NotYet(str(error))
    if found.error is not None:
        return NotYet(str(found.error))
    leaderless = [one.id for one in found.partitions.values() if one.leader < 0 or one.error is not None]
    return NotYet(f"no leader for {leaderless}") if leaderless or not found.partitions else True
