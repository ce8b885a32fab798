"""A Kafka topic as a `SignalStream`: a consumer group that commits only what is finished.

Built for `heal worker --from kafka://...` and read by `app.workers.stream_reader`. In
each partition the group commits up to the first record that was neither
acknowledged nor put among the dead letters (`<topic>.dead`), so that a crash on
either side only repeats records (promise 9). Partitions move between consumers
cooperatively; what was not finished in a partition that left is forgotten here
and comes again there. Everything that may block runs on the client's own thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from app.agent.ports.streams import StreamMessage
from app.bounds.deadline import deadline
from app.connectors.streams.kafka.address import KafkaAddress
from app.connectors.streams.kafka.client import (
    ClientThread,
    DeadLetters,
    agent_error,
    cause,
    client_settings,
    consumer_settings,
    load_library,
)
from app.connectors.streams.kafka.records import (
    Held,
    PartitionProgress,
    dead_letter_headers,
    place_of,
    record_of,
    to_message,
)
from app.errors import ConfigurationError, PermanentError, TransientError

if TYPE_CHECKING:
    from confluent_kafka import Consumer, KafkaError, Message, TopicPartition
    from confluent_kafka.admin import AdminClient

log = logging.getLogger(__name__)

_SLICE_SECONDS = 0.1
"""How long the thread polls before it looks for other work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaTimes:
    """How long a consumer waits."""

    wait: timedelta = timedelta(milliseconds=500)
    """`take`, for the first message."""
    answer: timedelta = timedelta(seconds=5)
    """For brokers to say what they have, and to take leave of them."""
    stuck: timedelta = timedelta(seconds=20)
    """For anything else that the client does; longer than any of its own limits."""


class KafkaStream:
    """`app.agent.ports.SignalStream` over one consumer of a group of one topic."""

    def __init__(self, address: KafkaAddress, *, times: KafkaTimes | None = None) -> None:
        """Connects on first use.

        Raises `ConfigurationError` when the client library is missing or refuses its settings.
        """
        self._address = address
        self._times = times or KafkaTimes()
        self._library = load_library()
        self._thread = ClientThread(f"kafka-{address.topic}")
        self._letters = DeadLetters(self._library, address)
        self._trouble: KafkaError | None = None
        """The client's last connection error; None when connections recovered since."""
        self._cluster: str | None = None
        self._consumer: Consumer | None = None
        self._admin: AdminClient | None = None
        self._closed = False
        self._lock = threading.Lock()
        """Over what follows: the thread adds and removes, the event loop takes and finishes."""
        self._ready: deque[Held] = deque()
        self._partitions: dict[int, PartitionProgress] | None = None
        """What is assigned to this consumer; None while it is no member of the group."""
        try:
            self._admin = self._library.admin.AdminClient(client_settings(address))
            self._consumer = self._new_consumer()
        except self._library.KafkaException as exception:
            raise ConfigurationError(f"{address}: {cause(exception).str()}") from None

    # ------------------------------------------------------------ the port

    async def take(self, limit: int) -> tuple[StreamMessage, ...]:
        """What was taken is this caller's until it is acknowledged, rejected, or given up by `close`.

        Has to be called again within five minutes (`max.poll.interval.ms`), or
        the partitions go to others.
        """
        if limit < 1:
            raise ValueError("limit must be at least 1")
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._times.wait.total_seconds()
        while True:
            if messages := self._hand_out(limit):
                return messages
            await self._thread.run(lambda: self._poll(limit), self._times.stuck)
            if loop.time() >= deadline:
                return self._hand_out(limit)

    async def acknowledge(self, messages: Sequence[StreamMessage]) -> None:
        """Harmless for messages of partitions that have left meanwhile.

        A commit that fails now is retried while reading, so
        that a reader never waits here for what only further reading can fix.
        """
        with self._lock:
            for message in messages:
                if (progress := self._progress(message)) is not None:
                    progress.finish(message)
            due = bool(self._due())
        if due:
            await self._thread.run(self._commit, self._times.stuck)

    async def reject(self, message: StreamMessage, reason: str) -> None:
        """A message that is not held any more is left alone: it was finished, or comes again elsewhere."""
        at = datetime.now(UTC)
        await self._thread.run(lambda: self._reject(message, reason, at), self._times.stuck)

    async def lag(self) -> int | None:
        """In the partitions of this consumer; None until it has seen something of each of them."""
        with self._lock:
            if self._partitions is None or self._admin is None:
                return None
            safe = {number: progress.safe for number, progress in self._partitions.items()}
        known = {number: offset for number, offset in safe.items() if offset is not None}
        if len(known) < len(safe):
            return None
        ends = await self._ends(known)
        return sum(max(0, ends[number] - offset) for number, offset in known.items())

    async def close(self) -> None:
        """Leave the group; brokers out of reach find out when the session is over."""
        if self._closed:
            return
        self._closed = True
        try:
            await self._thread.run(self._leave, self._times.answer)
        except TransientError as error:
            log.warning("leaving %s failed: %s", self._address, error)
        finally:
            self._thread.end()

    # ------------------------------------------------------------ between thread and event loop

    def _hand_out(self, limit: int) -> tuple[StreamMessage, ...]:
        with self._lock:
            count = min(limit, len(self._ready))
            return tuple(self._ready.popleft().message for _ in range(count))

    def _progress(self, message: StreamMessage) -> PartitionProgress | None:
        return (self._partitions or {}).get(place_of(message.position)[0])

    def _due(self) -> dict[int, int]:
        partitions = (self._partitions or {}).items()
        return {number: progress.due for number, progress in partitions if progress.due is not None}

    # ------------------------------------------------------------ on the thread: reading

    def _poll(self, limit: int) -> None:
        """Serve the client for a moment; what arrives is ready afterwards. Raises like `take`."""
        consumer = self._member()
        self._commit()
        first = consumer.poll(_SLICE_SECONDS)
        if first is None:
            if self._trouble is not None:
                self._cluster = self._survey(consumer)
            return
        errors = [self._sort(one) for one in (first, *consumer.consume(limit, 0))]
        for error in errors:
            if error is not None:
                self._judge(error)

    def _sort(self, message: Message) -> KafkaError | None:
        """Put a record where `take` finds it; whatever else it is, is the answer."""
        error, number, offset = message.error(), message.partition(), message.offset()
        with self._lock:
            progress = None if number is None else (self._partitions or {}).get(number)
            if error is not None and error.code() != self._library.KafkaError._PARTITION_EOF:
                return error
            if progress is None or number is None or offset is None:
                return None  # of a partition that left while this was on its way
            if error is not None:
                progress.ended_at(offset)
                return None
            record = record_of(message, number, offset)
            held = Held(record=record, message=to_message(self._cluster or "", self._address.topic, record))
            progress.read(held)
            self._ready.append(held)
        return None

    def _judge(self, error: KafkaError) -> None:
        """Raise what the client says instead of a record, where it is more than a passing remark."""
        if error.fatal():
            log.error("restarting the consumer of %s: %s", self._address, error.str())
            self._abandon()
        elif error.name() == "_MAX_POLL_EXCEEDED":
            log.warning("%s: poll interval exceeded, partitions revoked", self._address)
            return
        raise agent_error(f"reading {self._address}", error)

    def _abandon(self) -> None:
        """Give a consumer up that will never work again; the next call makes another."""
        consumer, self._consumer = self._consumer, None
        self._lost(None, None)
        if consumer is not None:
            with contextlib.suppress(self._library.KafkaException):
                consumer.close()

    # ------------------------------------------------------------ on the thread: membership

    def _new_consumer(self) -> Consumer:
        self._cluster = None  # not subscribed yet
        consumer: Consumer = self._library.Consumer(
            {**consumer_settings(self._address), "error_cb": self._heard, "on_commit": self._committed}
        )
        return consumer

    def _member(self) -> Consumer:
        """The consumer, which has joined the group; raises while that cannot be."""
        if self._closed:
            raise PermanentError(f"{self._address} is closed")
        if self._consumer is None:
            self._consumer = self._new_consumer()
        if self._cluster is None:
            cluster = self._survey(self._consumer)
            if self._admin is None:
                raise PermanentError(f"{self._address} is closed")
            self._letters.ensure_topic(self._consumer, self._admin, self._times.answer.total_seconds())
            self._consumer.subscribe(
                [self._address.topic],
                on_assign=self._assigned,
                on_revoke=self._revoked,
                on_lost=self._lost,
            )
            self._cluster = cluster
        return self._consumer

    def _heard(self, error: KafkaError) -> None:
        """The client's remarks on its connections: the most telling is kept until a survey succeeds."""
        if self._trouble is None or error.name() != "_ALL_BROKERS_DOWN":
            self._trouble = error

    def _survey(self, consumer: Consumer) -> str:
        """Ask a broker for the cluster's id; raises when none answers, or there is no such topic."""
        doing = f"reading {self._address}"
        try:
            metadata = consumer.list_topics(self._address.topic, timeout=self._times.answer.total_seconds())
        except self._library.KafkaException as exception:
            if self._cluster is None:
                consumer.poll(0)  # hear why
            raise agent_error(doing, self._trouble or cause(exception)) from exception
        topic = metadata.topics[self._address.topic]
        if topic.error is not None:
            if topic.error.name() == "UNKNOWN_TOPIC_OR_PART":
                raise TransientError(f"{doing}: the topic does not exist: create it")
            raise agent_error(doing, topic.error)
        self._trouble = None
        return str(metadata.cluster_id)

    def _assigned(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        with self._lock:
            self._partitions = self._partitions or {}
            self._partitions |= {one.partition: PartitionProgress() for one in partitions}
        log.info("%s: partitions assigned: %s", self._address, _numbers(partitions))

    def _revoked(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """The last chance to commit what is finished: the client answers commits before it lets go."""
        self._commit()
        self._forget({one.partition for one in partitions})
        log.info("%s: partitions revoked: %s", self._address, _numbers(partitions))

    def _lost(self, _consumer: Consumer | None, partitions: list[TopicPartition] | None) -> None:
        """Another consumer already owns them."""
        self._forget(None)
        if partitions:
            log.warning("%s: partitions lost: %s", self._address, _numbers(partitions))

    def _forget(self, numbers: set[int] | None) -> None:
        """Drop partitions, or all and the membership, with every record of them that waits."""
        with self._lock:
            kept = (
                {}
                if numbers is None
                else {
                    number: one for number, one in (self._partitions or {}).items() if number not in numbers
                }
            )
            self._partitions = None if numbers is None else kept
            self._ready = deque(one for one in self._ready if one.record.partition in kept)

    # ------------------------------------------------------------ on the thread: finishing

    def _commit(self) -> None:
        """Commit the finished offsets; a failed commit stays due."""
        with self._lock:
            due = self._due()
        if not due or self._consumer is None:
            return
        topic = self._address.topic
        offsets = [self._library.TopicPartition(topic, number, offset) for number, offset in due.items()]
        try:
            # Waiting for the answer could take as long as the brokers are out of reach.
            self._consumer.commit(offsets=offsets, asynchronous=True)
        except self._library.KafkaException as exception:
            log.info(
                "%s: commit failed, messages may be redelivered: %s", self._address, cause(exception).str()
            )
            return
        with self._lock:
            for number, offset in due.items():
                if (progress := (self._partitions or {}).get(number)) is not None:
                    progress.committed = offset

    def _committed(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        """The group's answer; what it refused is due again."""
        for one in partitions:
            refusal = error if one.error is None else one.error
            if refusal is None:
                continue
            log.info("%s: commit failed, messages may be redelivered: %s", self._address, refusal.str())
            with self._lock:
                if (progress := (self._partitions or {}).get(one.partition)) is not None:
                    progress.refused(one.offset)

    def _reject(self, message: StreamMessage, reason: str, at: datetime) -> None:
        with self._lock:
            progress = self._progress(message)
            held = None if progress is None else progress.held(message)
        if progress is None or held is None:
            return
        headers = dead_letter_headers(held, reason, group=self._address.group, at=at)
        self._letters.write(held.record.key, held.record.value, headers)
        with self._lock:
            progress.finish(message)
        self._commit()

    def _leave(self) -> None:
        consumer, self._admin = self._consumer, None
        self._letters.close()
        if consumer is not None:
            try:
                consumer.close()  # revokes what is assigned, and that commits
            except self._library.KafkaException as exception:
                log.info("leaving %s: %s", self._address, cause(exception).str())
        self._consumer = None
        self._forget(None)

    async def _ends(self, known: dict[int, int]) -> dict[int, int]:
        """The offset behind the last readable record of each partition."""
        library, admin = self._library, self._admin
        if admin is None or not known:
            return {}
        latest = library.admin.OffsetSpec.latest()
        wanted = {library.TopicPartition(self._address.topic, number): latest for number in known}
        try:
            async with deadline(self._times.stuck.total_seconds(), self._no_lag):
                answers = admin.list_offsets(wanted, isolation_level=library.IsolationLevel.READ_COMMITTED)
                found = {
                    place.partition: await asyncio.wrap_future(future) for place, future in answers.items()
                }
        except library.KafkaException as exception:
            raise agent_error(f"the lag of {self._address}", cause(exception)) from exception
        return {number: one.offset for number, one in found.items()}

    def _no_lag(self) -> TransientError:
        return TransientError(f"the lag of {self._address}: no answer")


def _numbers(partitions: Sequence[TopicPartition]) -> str:
    return ", ".join(str(one.partition) for one in partitions) or "none"
