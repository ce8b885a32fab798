"""Streams of signals that several consumers share, such as a topic of a broker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamMessage:
    """One entry of a stream, as it was read."""

    position: str
    """Its position, the same on every redelivery: `<source>:<cluster>/<topic>/<partition>/<offset>`."""
    key: str | None
    """Its ordering key, if the stream has keys: `<environment>/<service>`."""
    body: bytes
    headers: Mapping[str, str]
    appended_at: datetime | None
    """When the stream took it in, where it says."""
    deliveries: int = 1
    """How often it was handed out, this time included, where the stream counts."""


class SignalStream(Protocol):
    """A durable stream of signals, read by one of several consumers that share the work.

    A message is handed out again, here or to another consumer, until it was
    acknowledged or rejected: at least once, in order within a key where the
    stream has keys.
    """

    async def take(self, limit: int) -> tuple[StreamMessage, ...]:
        """The next messages, at most `limit`; waits a short while for the first, then may be empty."""
        ...

    async def acknowledge(self, messages: Sequence[StreamMessage]) -> None:
        """These are durable elsewhere. Losing this only repeats them."""
        ...

    async def reject(self, message: StreamMessage, reason: str) -> None:
        """Put it into the dead letters with the reason, durably, then acknowledge it."""
        ...

    async def lag(self) -> int | None:
        """How many messages this consumer has still to read or acknowledge; None when unknown."""
        ...

    async def close(self) -> None:
        """Give up its share at once, so that another consumer takes it over."""
        ...


@dataclass(slots=True, kw_only=True)
class StreamProgress:
    """How a reader is getting on, for readiness and metrics. Counts start at zero with the process."""

    accepted: int = 0
    """Signals made durable, repetitions included."""
    acknowledged: int = 0
    """Messages done with after their signals were durable."""
    rejected: int = 0
    """Messages put among the dead letters."""
    redelivered: int = 0
    """Messages taken that had been handed out before, where the stream counts that."""
    lag: int | None = None
    """Messages still to be read or acknowledged, when last asked; None when not known."""
    lag_at: datetime | None = None
    blocked_since: datetime | None = None
    """Since when nothing moves; None while all is well."""
    error: str = ""
    """The reason while the stream waits."""
