"""Records of a Kafka topic: what they carry, how far a partition is finished, and their dead letters. Pure.

Used by `app.connectors.streams.kafka.stream`. A group acknowledges up to an offset, so
only the part of a partition in front of the first unfinished record may be.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from app.agent.ports.streams import StreamMessage
from app.connectors.text import shorten

if TYPE_CHECKING:
    from confluent_kafka import Message

_MAX_REASON_CHARS = 1000

Headers = Sequence[tuple[str, bytes | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One record exactly as Kafka has it."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    """In order; a name may stand there more than once."""
    timestamp_ms: int | None
    """Of the sender or of the broker, as the topic is set; None when it has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A record that was handed to this consumer and is not finished."""

    record: Record
    message: StreamMessage


def record_of(message: Message, partition: int, offset: int) -> Record:
    """A message of the client as a record."""
    kind, timestamp = message.timestamp()
    return Record(
        partition=partition,
        offset=offset,
        key=message.key(),
        value=message.value(),
        headers=tuple(_bytes_headers(message)),
        timestamp_ms=timestamp if kind else None,
    )


def _bytes_headers(message: Message) -> Iterator[tuple[str, bytes | None]]:
    """The library's types allow for more than it hands over."""
    headers = message.headers() or ()
    for name, value in headers.items() if isinstance(headers, dict) else headers:
        yield name, value.encode() if isinstance(value, str) else value


def to_message(cluster: str, topic: str, record: Record) -> StreamMessage:
    """A record as a message.

    Offsets may come again in a topic that was deleted and recreated, or after
    brokers lost its end: the content is part of the position.
    """
    digest = hashlib.sha256(b"%d" % (-1 if record.timestamp_ms is None else record.timestamp_ms))
    for part in (record.key, record.value):
        digest.update(b"-" if part is None else b"%d:" % len(part) + part)
    place = f"kafka:{cluster}/{topic}/{record.partition}/{record.offset}"
    return StreamMessage(
        position=f"{place}#{digest.hexdigest()[:16]}",
        key=None if record.key is None else _text(record.key),
        body=record.value or b"",
        headers={name: _text(value or b"") for name, value in record.headers},
        appended_at=_time(record.timestamp_ms),
    )


def place_of(position: str) -> tuple[int, int]:
    """Partition and offset of a position; raises `ValueError` for one that is not Kafka's."""
    partition, offset = position.partition("#")[0].rsplit("/", 2)[1:]
    return int(partition), int(offset)


def dead_letter_headers(
    held: Held, reason: str, *, group: str, at: datetime
) -> list[tuple[str, bytes | None]]:
    """The record's own headers, then who rejected it, when, and why."""
    added = {
        "dead-reason": shorten(reason, _MAX_REASON_CHARS),
        "dead-position": held.message.position,
        "dead-group": group,
        "dead-at": at.isoformat(),
    }
    return [*held.record.headers, *((name, value.encode()) for name, value in added.items())]


@dataclass(slots=True, kw_only=True)
class PartitionProgress:
    """How far this consumer has come in one partition since it was assigned."""

    committed: int | None = None
    """The group's committed offset, where it resumes after a crash; None when unknown."""
    _next: int | None = None
    _unfinished: dict[int, Held] = field(default_factory=dict)
    """By offset, lowest first: a partition is read in order."""

    @property
    def safe(self) -> int | None:
        """Everything in front of this offset is finished; None before anything was read."""
        return next(iter(self._unfinished), self._next)

    @property
    def due(self) -> int | None:
        """The offset to commit; None when the group has it already."""
        return None if self.safe == self.committed else self.safe

    def read(self, held: Held) -> None:
        """A record was handed over by the client."""
        offset = held.record.offset
        if self._next is not None and offset < self._next:
            # The log was truncated or recreated: known records are gone, or are delivered again.
            self._unfinished.clear()
            self.committed = None
        self._unfinished[offset] = held
        self._next = offset + 1

    def ended_at(self, offset: int) -> None:
        """The client came to the partition's present end; what lies between is not for readers."""
        self._next = max(offset, self._next or 0)

    def refused(self, offset: int) -> None:
        """A commit failed; unless a later one is under way, it is due again."""
        if self.committed == offset:
            self.committed = None

    def held(self, message: StreamMessage) -> Held | None:
        """The unfinished record behind a message; None when it is finished, or another now stands there."""
        found = self._unfinished.get(place_of(message.position)[1])
        return found if found is not None and found.message.position == message.position else None

    def finish(self, message: StreamMessage) -> None:
        """Acknowledged or rejected. Harmless for what is not held (any more)."""
        if (found := self.held(message)) is not None:
            del self._unfinished[found.record.offset]


def _text(value: bytes) -> str:
    return value.decode("utf-8", "backslashreplace")


def _time(milliseconds: int | None) -> datetime | None:
    """Senders may set any number."""
    if milliseconds is None or milliseconds < 0:
        return None
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (OverflowError, OSError, ValueError):
        return None
