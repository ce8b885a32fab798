"""Entries of a Redis stream: their names, what they carry, and which to hand out again. Pure.

Used by `app.connectors.streams.redis.stream`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from app.agent.ports.streams import StreamMessage

_BODY, _KEY = b"body", b"key"
_SUSPECT_AFTER = 2
"""An entry handed out this often and never finished is handed out alone: it may be what kills readers."""
_EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """An entry that was handed out and is not acknowledged."""

    entry: str
    deliveries: int
    """How often it was handed out."""


def to_message(stream: str, entry: str, fields: Mapping[bytes, bytes], deliveries: int) -> StreamMessage:
    """An entry as a message: `body`, `key`, and every other field as a header.

    Entry names may come again after a flush, when a clock was set back or a
    sender chose them: the content is part of the position.
    """
    digest = hashlib.sha256()
    for name, value in fields.items():
        digest.update(b"%d:%d:" % (len(name), len(value)) + name + value)
    key = fields.get(_KEY)
    return StreamMessage(
        position=f"redis:{stream}/{entry}#{digest.hexdigest()[:16]}",
        key=None if key is None else text(key),
        body=fields.get(_BODY, b""),
        headers={text(name): text(value) for name, value in fields.items() if name not in (_BODY, _KEY)},
        appended_at=_appended_at(entry),
        deliveries=deliveries,
    )


def entry_of(message: StreamMessage) -> str:
    """The entry's name in Redis."""
    return message.position.rpartition("/")[2].partition("#")[0]


def _appended_at(entry: str) -> datetime | None:
    """Names given by the server begin with its time; names that a sender chose may not."""
    try:
        at = datetime.fromtimestamp(numbers(entry)[0] / 1000, UTC)
    except (OverflowError, OSError, ValueError):
        return None
    return at if at >= _EARLIEST else None


def alone_or_together(pending: Sequence[Pending]) -> Sequence[Pending]:
    """The leading entries that are under no suspicion, or the first alone when it is."""
    together: list[Pending] = []
    for one in pending:
        if one.deliveries >= _SUSPECT_AFTER:
            return together or [one]
        together.append(one)
    return together


def numbers(entry: str) -> tuple[int, int]:
    milliseconds, _, number = entry.partition("-")
    return int(milliseconds), int(number)


def text(value: bytes | str) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "backslashreplace")
