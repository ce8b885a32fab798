"""The Kafka client on a thread of its own: settings, errors and dead letters.

Used by `app.connectors.streams.kafka.stream`. The library (the extra `kafka`) is
imported when a stream is made, so that the agent starts without it.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from app.connectors.streams.kafka.address import KafkaAddress
from app.connectors.streams.kafka.records import Headers
from app.connectors.text import shorten
from app.errors import AgentError, ConfigurationError, Forbidden, Invalid, PermanentError, TransientError

if TYPE_CHECKING:
    from types import ModuleType

    from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
    from confluent_kafka.admin import AdminClient

_DELIVERY_MS = 10_000
_MOST_BYTES = 100_000_000
"""What a dead letter may have before the broker is asked; the topic's own limit decides."""
_FOR_ALL_CLIENTS = (
    "api.",
    "broker.",
    "client.",
    "reconnect.",
    "sasl.",
    "security.",
    "socket.",
    "ssl.",
    "https.",
)
_CONSUMER_DEFAULTS: Mapping[str, str | int] = {
    "session.timeout.ms": 10_000,  # a dead consumer's partitions move after this
    "heartbeat.interval.ms": 2_000,
    "queued.min.messages": 2_000,
    "queued.max.messages.kbytes": 16_384,
}
_DEFAULTS: Mapping[str, str | int] = {
    "client.id": "heal",
    "log_level": 0,  # twenty lines a second while a broker is away; what matters comes as an error
    "socket.timeout.ms": 10_000,
    "reconnect.backoff.max.ms": 2_000,
    "log.connection.close": "false",
}

log = logging.getLogger(__name__)

T = TypeVar("T")


def load_library() -> ModuleType:
    """The client library; raises `ConfigurationError` where it is not installed."""
    try:
        import confluent_kafka
        import confluent_kafka.admin
    except ImportError:
        raise ConfigurationError(
            "reading from Kafka needs the extra 'kafka': pip install '.[kafka]'"
        ) from None
    return confluent_kafka


def client_settings(address: KafkaAddress) -> dict[str, Any]:
    """What every client of the cluster needs: where it is, and how to get in."""
    own = {name: value for name, value in address.properties.items() if name.startswith(_FOR_ALL_CLIENTS)}
    return {**_DEFAULTS, **own, "bootstrap.servers": ",".join(address.servers)}


def consumer_settings(address: KafkaAddress) -> dict[str, Any]:
    """The consumer's: it commits only explicitly and reads only complete transactions."""
    return {
        **client_settings(address),
        **_CONSUMER_DEFAULTS,
        **address.properties,
        "group.id": address.group,
        "auto.offset.reset": str(address.start),
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "enable.partition.eof": True,
        "isolation.level": "read_committed",
        "partition.assignment.strategy": "cooperative-sticky",
    }


def producer_settings(address: KafkaAddress) -> dict[str, Any]:
    """The dead letters' producer: written once, by all replicas, or reported as failed."""
    return {
        **client_settings(address),
        "acks": "all",
        "enable.idempotence": True,
        "delivery.timeout.ms": _DELIVERY_MS,
        "message.max.bytes": _MOST_BYTES,
    }


def agent_error(doing: str, error: KafkaError) -> AgentError:
    """Kafka's error by what the caller should do next."""
    message = f"{doing}: {shorten(error.str())} ({error.name()})"
    if error.name() in _FORBIDDEN:
        return Forbidden(message)
    if error.name() in _INVALID:
        return Invalid(message)
    return TransientError(message)


_FORBIDDEN = frozenset(
    {
        "CLUSTER_AUTHORIZATION_FAILED",
        "GROUP_AUTHORIZATION_FAILED",
        "SASL_AUTHENTICATION_FAILED",
        "TOPIC_AUTHORIZATION_FAILED",
        "_AUTHENTICATION",
    }
)
_INVALID = frozenset({"INVALID_RECORD", "INVALID_TOPIC_EXCEPTION", "MSG_SIZE_TOO_LARGE", "POLICY_VIOLATION"})


def cause(exception: KafkaException) -> KafkaError:
    """The error inside the library's exception."""
    error: KafkaError = exception.args[0]
    return error


class ClientThread:
    """One thread that runs everything that may block, in order; ends with the process if it is stuck."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._ended = False

    async def run(self, call: Callable[[], T], within: timedelta) -> T:
        """The call's result; a cancelled caller leaves a call alone that has begun.

        Raises `TransientError` when it takes longer than `within`, and
        `PermanentError` after the end.
        """
        if self._ended:
            raise PermanentError("the Kafka client is closed")
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name=self._name, daemon=True)
            self._thread.start()
        future: Future[T] = Future()
        self._work.put(lambda: _settle(future, call))
        seconds = within.total_seconds()
        answer = asyncio.wrap_future(future)
        try:
            await asyncio.wait({answer}, timeout=seconds)
            if not answer.done():
                raise TransientError(f"the Kafka client has not answered for {seconds:g} s")
            return answer.result()
        finally:
            answer.cancel()

    def end(self) -> None:
        """After what was asked of it already. Safe to repeat."""
        self._ended = True
        self._work.put(None)

    def _serve(self) -> None:
        while (work := self._work.get()) is not None:
            work()


def _settle(future: Future[T], call: Callable[[], T]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(call())
    except BaseException as error:  # noqa: BLE001 - it is raised again where the result is awaited
        future.set_exception(error)


class DeadLetters:
    """Creates and writes to the topic of the dead letters; blocking, on the client's thread."""

    def __init__(self, library: ModuleType, address: KafkaAddress) -> None:
        self._library = library
        self._address = address
        self._producer: Producer | None = None

    def ensure_topic(self, consumer: Consumer, admin: AdminClient, limit: float) -> None:
        """Create the topic where there is none, before a message needs it. Raises like every port.

        `limit` is in seconds, for each answer of the brokers.
        """
        name = self._address.dead_letters
        doing = f"there is no topic {name} for dead letters, and making it failed: create it"
        try:
            found = consumer.list_topics(name, timeout=limit).topics[name]
            if found.error is not None and found.error.name() == "UNKNOWN_TOPIC_OR_PART":
                new = self._library.admin.NewTopic(name, num_partitions=-1, replication_factor=-1)
                admin.create_topics([new], request_timeout=limit)[name].result(limit + 1)
                log.info("created dead-letter topic %s", name)
            elif found.error is not None:
                raise agent_error(f"looking for the topic {name} for dead letters", found.error)
        except self._library.KafkaException as exception:
            if cause(exception).name() != "TOPIC_ALREADY_EXISTS":
                raise agent_error(doing, cause(exception)) from exception
        except TimeoutError:
            raise TransientError(f"{doing}: no answer") from None

    def write(self, key: bytes | None, value: bytes | None, headers: Headers) -> None:
        """Return when all in-sync replicas have it; without its value when that is too large.

        Raises like every port.
        """
        try:
            self._write(key, value, headers)
        except Invalid as refusal:
            if not value or "MSG_SIZE_TOO_LARGE" not in str(refusal):
                raise
            left_out = ("dead-value-left-out", f"{len(value)} bytes".encode())
            self._write(key, None, [*headers, left_out])

    def close(self) -> None:
        """Nothing is under way outside `write`."""
        self._producer = None

    def _write(self, key: bytes | None, value: bytes | None, headers: Headers) -> None:
        doing = f"writing to {self._address.dead_letters}"
        answers: list[KafkaError | None] = []
        if self._producer is None:
            self._producer = self._library.Producer(producer_settings(self._address))
        producer = self._producer
        try:
            producer.produce(
                self._address.dead_letters,
                key=key,
                value=value,
                headers=list(headers),
                on_delivery=lambda error, _message: answers.append(error),
            )
            producer.flush(_DELIVERY_MS / 1000 + 1)
        except self._library.KafkaException as exception:
            self._producer = None
            raise agent_error(doing, cause(exception)) from exception
        if not answers:
            producer.purge()
            self._producer = None
            raise TransientError(f"{doing}: no answer in {_DELIVERY_MS // 1000} s")
        if answers[0] is not None:
            if answers[0].fatal():
                self._producer = None
            raise agent_error(doing, answers[0])
