"""The reader of a stream: messages become signals, and only durable signals are acknowledged (promise 9).

One `StreamReader` reads one `SignalStream` for the life of the process, and its signals go to the same
`Intake.accept` as those of HTTP. Crashes, lost answers and shutdowns only repeat messages: a signal's id is
derived from the position of its message, so that the store recognises the same signal. A message that can
never become a signal goes to the dead letters with the reason and blocks nothing; while the store, the
stream or the schema registry is unreachable, everything waits, in order.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeVar

from app.agent.identity.people import Sender, SenderKind
from app.agent.ids import SignalId
from app.agent.intake import Intake
from app.agent.ports.streams import SignalStream, StreamMessage, StreamProgress
from app.bounds.backoff import Backoff
from app.clock import Clock
from app.connectors.streams.avro import FlatSchema, schema_id
from app.connectors.streams.envelope import Poison, read_message
from app.connectors.streams.schema_registry import SchemaRegistry
from app.errors import AgentError, Invalid, NotFound, TransientError
from app.wire.events import MAX_ENTRIES, Event, to_signal

log = logging.getLogger(__name__)

_BACKOFF = Backoff.of_seconds(0.25, 30.0)
_LAG_EVERY = timedelta(seconds=5)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamLimits:
    """The limits of a reader."""

    stale_after: timedelta
    max_future: timedelta
    """How far ahead of ours a sender's clock may be."""
    max_bytes: int
    """Of one message."""
    max_deliveries: int = 10
    """A message handed out more often than this is believed to kill its readers."""
    batch: int = 200
    """Messages taken in one call; a transaction holds at most a thousand signals."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    """A message with the events in it."""

    message: StreamMessage
    events: tuple[Event, ...]


def signal_id_at(position: str, index: int) -> SignalId:
    """The id of the signal at an index of the message at a position: the same on every delivery."""
    digest = hashlib.sha256(f"{position}\n{index}".encode("utf-8", "backslashreplace"))
    return SignalId(f"sig_{digest.hexdigest()[:32]}")


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamReader:
    """Feeds the intake from one stream."""

    stream: SignalStream
    source: str
    """What its signals give as their source: the kind of stream."""
    intake: Intake
    clock: Clock
    limits: StreamLimits
    schemas: SchemaRegistry | None = None
    progress: StreamProgress = field(default_factory=StreamProgress)

    async def run(self) -> None:
        """Read until cancelled, then give the share of the stream back."""
        try:
            while True:
                await self.read_once()
        finally:
            await self.stream.close()

    async def read_once(self) -> None:
        """Read the next messages and finish each of them, without a time limit."""
        limit = self.limits.batch
        messages = await self._patiently("reading the stream", lambda: self.stream.take(limit))
        self.progress.redelivered += sum(message.deliveries > 1 for message in messages)
        run: list[_Read] = []
        size = 0
        for message in messages:
            try:
                events = await self._read(message)
            except Poison as poison:
                # Finish earlier messages first: some streams acknowledge up to a position.
                await self._settle(run)
                run, size = [], 0
                await self._reject(message, str(poison))
                continue
            if size + len(events) > MAX_ENTRIES:
                await self._settle(run)
                run, size = [], 0
            run.append(_Read(message=message, events=events))
            size += len(events)
        await self._settle(run)
        await self._measure()

    # ------------------------------------------------------------ one message

    async def _read(self, message: StreamMessage) -> tuple[Event, ...]:
        """The events of a message; raises `Poison`."""
        limits = self.limits
        if message.deliveries > limits.max_deliveries:
            raise Poison(
                f"it was handed out {message.deliveries - 1} times and never acknowledged: "
                "it may crash its readers"
            )
        schema = await self._schema(message) if len(message.body) <= limits.max_bytes else None
        latest = self.clock.now() + limits.max_future
        try:
            return read_message(message, latest=latest, max_bytes=limits.max_bytes, schema=schema)
        except Poison:
            raise
        except Exception as error:  # the worker boundary: an internal error blocks no message
            log.exception("reading the message at %s failed", message.position)
            raise Poison(f"internal error: reading it failed with {type(error).__name__}") from error

    async def _schema(self, message: StreamMessage) -> FlatSchema | None:
        number, registry = schema_id(message.body), self.schemas
        if number is None or registry is None:
            return None
        try:
            return await self._patiently(
                "asking for a schema", lambda: registry.schema(number), refusals=(NotFound, Invalid)
            )
        except (NotFound, Invalid) as refusal:
            raise Poison(str(refusal)) from None

    async def _reject(self, message: StreamMessage, reason: str) -> None:
        log.warning("message at %s sent to the dead letters: %s", message.position, reason)
        await self._patiently("writing a dead letter", lambda: self.stream.reject(message, reason))
        self.progress.rejected += 1

    # ------------------------------------------------------------ a run of good messages

    async def _settle(self, run: Sequence[_Read]) -> None:
        """Make the signals of some messages durable, then acknowledge them.

        Together where possible; when the store refuses a content, one by one, so
        that only the message it refuses is rejected.
        """
        if not run:
            return
        try:
            await self._patiently("storing signals", lambda: self._accept(run), refusals=(Invalid,))
        except Invalid as refusal:
            if len(run) == 1:
                await self._reject(run[0].message, f"rejected by the store: {refusal}")
                return
            for one in run:
                await self._settle([one])
            return
        messages = [one.message for one in run]
        await self._patiently("acknowledging", lambda: self.stream.acknowledge(messages))
        self.progress.acknowledged += len(messages)

    async def _accept(self, run: Sequence[_Read]) -> None:
        """One transaction. Staleness is evaluated at each attempt: waiting makes a signal stale."""
        received_at = self.clock.now()
        signals = [
            to_signal(
                event,
                source=self.source,
                received_at=received_at,
                stale_after=self.limits.stale_after,
                signal_id=signal_id_at(one.message.position, index),
                sender=Sender(kind=SenderKind.STREAM, name=self.source),
            )
            for one in run
            for index, event in enumerate(one.events)
        ]
        self.progress.accepted += len(await self.intake.accept(signals))

    # ------------------------------------------------------------ patience

    async def _patiently(
        self, doing: str, attempt: Callable[[], Awaitable[T]], *, refusals: tuple[type[AgentError], ...] = ()
    ) -> T:
        """Try until it succeeds, with growing waits; only `refusals` are the caller's to deal with."""
        failures = 0
        while True:
            failures += 1
            pause = _BACKOFF.seconds_after(failures)
            try:
                result = await attempt()
            except refusals:
                self._well()
                raise
            except AgentError as error:
                if isinstance(error, TransientError) and error.retry_after is not None:
                    pause = _BACKOFF.seconds_after(failures, error.retry_after)
                self._blocked(doing, str(error))
                log.warning("%s: %s; retrying in %g s", doing, error, pause)
            except Exception as error:  # the worker boundary: a fault of ours loses nothing
                self._blocked(doing, type(error).__name__)
                log.exception("%s failed; retrying in %g s", doing, pause)
            else:
                self._well()
                return result
            await self._measure()  # the lag grows in the meantime
            await self.clock.sleep(pause)

    def _blocked(self, doing: str, why: str) -> None:
        self.progress.blocked_since = self.progress.blocked_since or self.clock.now()
        self.progress.error = f"{doing}: {why}"

    def _well(self) -> None:
        self.progress.blocked_since, self.progress.error = None, ""

    async def _measure(self) -> None:
        """Ask for the lag now and then; not knowing it stops nothing."""
        now, last = self.clock.now(), self.progress.lag_at
        if last is not None and now - last < _LAG_EVERY:
            return
        try:
            self.progress.lag = await self.stream.lag()
        except AgentError as error:
            self.progress.lag = None
            log.info("stream lag unknown: %s", error)
        self.progress.lag_at = now
