"""A circuit breaker for each source: a silent peer costs one time-out for all callers, not one for each.

`guarded_reader`, `guarded_rehearsal` and `guarded_metrics` put a breaker in front
of the ports that read; the remote policy engine asks its own. While the circuit is
open a call fails at once with the `TransientError` that an unreachable peer gives
anyway, so the promises about missing data hold unchanged (promises 7 and 8).
Writers have no breaker: the agent never writes where it could not read.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TypeVar

from app.agent.batch.runs import BatchRun, BatchView, EndedContainer
from app.agent.freshness.silences import Silence, Silencing
from app.agent.guardrails.cordons import NodeCordons
from app.agent.guardrails.disruption import Disruption
from app.agent.guardrails.drains import NodeLoad
from app.agent.guardrails.opt_out import OptOut
from app.agent.ids import ServiceKey
from app.agent.models import (
    Action,
    Rehearsal,
    SliSample,
    Snapshot,
    TelemetryHealth,
)
from app.agent.ports.cluster import (
    BatchReader,
    ClusterReader,
    ClusterRehearsal,
    PodOwner,
    PodOwners,
)
from app.agent.ports.metrics import MetricSource, SilenceSource
from app.agent.workload import ConfigRecord, ObjectRef, TargetState, WorkloadView
from app.bounds.backoff import Backoff
from app.connectors.alerts.delivery import AlertDelivery
from app.connectors.kinds import AlertSource, ConnectedSilences
from app.connectors.observability import Polled, SampleBatches
from app.errors import AgentError, Conflict, PermanentError, TransientError

FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 15.0
_BACKOFF = Backoff.of_seconds(FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)

T = TypeVar("T")


class CircuitState(StrEnum):
    """Whether a peer is asked."""

    CLOSED = "closed"
    OPEN = "open"
    """Calls are rejected; the last call failed and none succeeded since it began."""
    HALF_OPEN = "half_open"
    """One call finds out whether the peer answers again; the others still fail at once."""


@dataclass(slots=True, kw_only=True)
class PeerBreaker:
    """The state of one peer, shared by every caller in this process.

    A call that failed opens the circuit only when the peer answered no call since
    that call began: one expensive query that times out between others that are
    answered is not a silent peer. Times are seconds of a monotonic clock.
    """

    name: str
    monotonic: Callable[[], float] = time.monotonic
    answered_calls: int = 0
    failed_calls: int = 0
    rejected_calls: int = 0
    """Not made, because the circuit was open."""
    _failures: int = 0
    """Failed calls in a row that opened the circuit."""
    _answered_at: float = float("-inf")
    _open_until: float | None = None
    _asking: bool = False
    """The one call of the half-open state is under way."""
    _last_error: str = field(default="")

    @property
    def state(self) -> CircuitState:
        """Closed, open, or half-open once the pause is over."""
        if self._open_until is None:
            return CircuitState.CLOSED
        if self._asking or self.monotonic() >= self._open_until:
            return CircuitState.HALF_OPEN
        return CircuitState.OPEN

    @property
    def reachable(self) -> bool:
        """Whether the last call was answered, or none was made yet."""
        return self.state is CircuitState.CLOSED

    async def ask(self, call: Callable[[], Awaitable[T]]) -> T:
        """The call's result; `TransientError` at once while the circuit is open.

        A `PermanentError` or `Conflict` is an answer: the peer is there. Every
        other `AgentError` counts as silence.
        """
        probing = self._enter()
        began = self.monotonic()
        try:
            result = await call()
        except (PermanentError, Conflict):
            self.answered()
            raise
        except AgentError as error:
            self.failed(began, str(error))
            raise
        finally:
            if probing:
                self._asking = False
        self.answered()
        return result

    def _enter(self) -> bool:
        """Whether this call is the one of the half-open state."""
        match self.state:
            case CircuitState.CLOSED:
                return False
            case CircuitState.HALF_OPEN if not self._asking:
                self._asking = True
                return True
            case _:
                self.rejected_calls += 1
                raise self._refusal()

    def _refusal(self) -> TransientError:
        wait = max(FIRST_PAUSE_SECONDS, (self._open_until or 0.0) - self.monotonic())
        return TransientError(
            f"{self.name} is not called for now: its last call failed: {self._last_error}",
            retry_after=timedelta(seconds=wait),
        )

    def answered(self) -> None:
        """A call succeeded: close the circuit."""
        self.answered_calls += 1
        self._answered_at = self.monotonic()
        self._failures, self._open_until, self._last_error = 0, None, ""

    def failed(self, began: float, why: str) -> None:
        """A call that began then failed; opens the circuit unless another call succeeded meanwhile."""
        self.failed_calls += 1
        if self._answered_at >= began:
            return
        now = self.monotonic()
        if self._open_until is None or now >= self._open_until:
            # Calls that began together and fail together count as one.
            self._failures += 1
            self._open_until = now + _BACKOFF.seconds_after(self._failures)
        self._last_error = why


def guarded_reader(reader: ClusterReader, breaker: PeerBreaker) -> ClusterReader:
    """The reader behind a breaker."""
    return _GuardedReader(reader, breaker)


def guarded_owners(owners: PodOwners, breaker: PeerBreaker) -> PodOwners:
    """The owners of pods behind the breaker of the same API server."""
    return _GuardedOwners(owners, breaker)


def guarded_jobs(batches: BatchReader, breaker: PeerBreaker) -> BatchReader:
    """The reader of Jobs behind the breaker of the same API server."""
    return _GuardedJobs(batches, breaker)


def guarded_rehearsal(rehearsal: ClusterRehearsal, breaker: PeerBreaker) -> ClusterRehearsal:
    """The rehearsal behind the breaker of the same API server."""
    return _GuardedRehearsal(rehearsal, breaker)


def guarded_metrics(source: MetricSource, breaker: PeerBreaker) -> MetricSource:
    """The metric source behind a breaker; one that answers for many services still does."""
    if isinstance(source, SampleBatches):
        return _GuardedBatches(source, breaker, source)
    return _GuardedMetrics(source, breaker)


def guarded_silences(source: SilenceSource, breaker: PeerBreaker) -> SilenceSource:
    """The source of silences behind a breaker."""
    return _GuardedSilences(source, breaker)


def guarded_alerts(source: ConnectedSilences, breaker: PeerBreaker, every: timedelta) -> AlertSource:
    """The alerts of a source of silences, behind the breaker of that peer."""
    return _GuardedAlerts(source, breaker, every)


@dataclass(frozen=True, slots=True)
class _GuardedAlerts:
    source: ConnectedSilences
    breaker: PeerBreaker
    every: timedelta

    async def firing(self, own: Collection[str]) -> AlertDelivery:
        return await self.breaker.ask(lambda: self.source.firing(own))

    async def own_silences(self, at: datetime) -> tuple[Silence, ...]:
        return await self.breaker.ask(lambda: self.source.own_silences(at))

    async def listed(self, name: str) -> frozenset[str]:
        return await self.breaker.ask(lambda: self.source.listed(name))


@dataclass(frozen=True, slots=True)
class _GuardedSilences:
    source: SilenceSource
    breaker: PeerBreaker

    async def concerning(self, key: ServiceKey, at: datetime) -> tuple[Silencing, ...]:
        return await self.breaker.ask(lambda: self.source.concerning(key, at))


@dataclass(frozen=True, slots=True)
class _GuardedOwners:
    owners: PodOwners
    breaker: PeerBreaker

    async def owner(self, pod: ObjectRef) -> PodOwner | None:
        return await self.breaker.ask(lambda: self.owners.owner(pod))


@dataclass(frozen=True, slots=True)
class _GuardedJobs:
    reader: BatchReader
    breaker: PeerBreaker

    async def batches(self) -> tuple[BatchView, ...]:
        return await self.breaker.ask(self.reader.batches)

    async def batch(self, key: ServiceKey) -> BatchView | None:
        return await self.breaker.ask(lambda: self.reader.batch(key))

    async def failures(self, batch: BatchView, run: BatchRun) -> tuple[EndedContainer, ...]:
        return await self.breaker.ask(lambda: self.reader.failures(batch, run))


@dataclass(frozen=True, slots=True)
class _GuardedReader:
    reader: ClusterReader
    breaker: PeerBreaker

    async def services(self) -> tuple[ServiceKey, ...]:
        return await self.breaker.ask(self.reader.services)

    async def workload(self, key: ServiceKey) -> WorkloadView | None:
        return await self.breaker.ask(lambda: self.reader.workload(key))

    async def target(self, action: Action) -> TargetState:
        return await self.breaker.ask(lambda: self.reader.target(action))

    async def snapshot(self, action: Action) -> Snapshot:
        return await self.breaker.ask(lambda: self.reader.snapshot(action))

    async def disruption(self, action: Action) -> Disruption | None:
        return await self.breaker.ask(lambda: self.reader.disruption(action))

    async def cordons(self, node: ObjectRef) -> NodeCordons:
        return await self.breaker.ask(lambda: self.reader.cordons(node))

    async def load(self, node: ObjectRef, *, rooms: bool) -> NodeLoad:
        return await self.breaker.ask(lambda: self.reader.load(node, rooms=rooms))

    async def opt_out(self, action: Action, key: ServiceKey) -> OptOut:
        return await self.breaker.ask(lambda: self.reader.opt_out(action, key))

    async def config_contents(self, key: ServiceKey) -> tuple[ConfigRecord, ...]:
        return await self.breaker.ask(lambda: self.reader.config_contents(key))


@dataclass(frozen=True, slots=True)
class _GuardedRehearsal:
    rehearsal: ClusterRehearsal
    breaker: PeerBreaker

    async def rehearse(self, action: Action, target: TargetState, snapshot: Snapshot | None) -> Rehearsal:
        return await self.breaker.ask(lambda: self.rehearsal.rehearse(action, target, snapshot))


@dataclass(frozen=True, slots=True)
class _GuardedMetrics:
    source: MetricSource
    breaker: PeerBreaker

    async def sli(self, key: ServiceKey, at: datetime) -> SliSample:
        return await self.breaker.ask(lambda: self.source.sli(key, at))

    async def sli_range(
        self, key: ServiceKey, start: datetime, end: datetime, step: timedelta
    ) -> tuple[SliSample, ...]:
        return await self.breaker.ask(lambda: self.source.sli_range(key, start, end, step))

    async def telemetry(self, keys: Sequence[ServiceKey], at: datetime) -> TelemetryHealth:
        """An unreachable source is an answer of this port, and counts as silence for the breaker."""
        unreachable = TelemetryHealth(known_services=len(keys), silent_services=0, source_reachable=False)

        async def call() -> TelemetryHealth:
            found = await self.source.telemetry(keys, at)
            if not found.source_reachable:
                raise TransientError("the state of the telemetry could not be read")
            return found

        try:
            return await self.breaker.ask(call)
        except TransientError:
            return unreachable


@dataclass(frozen=True, slots=True)
class _GuardedBatches(_GuardedMetrics):
    batches: SampleBatches

    async def slis(self, keys: Sequence[ServiceKey], at: datetime) -> tuple[Polled, ...]:
        """No answer for any service counts as silence; while the circuit is open, each has that error."""

        async def call() -> tuple[Polled, ...]:
            found = await self.batches.slis(keys, at)
            errors = [answer for _, answer in found if isinstance(answer, TransientError)]
            if errors and len(errors) == len(found):
                raise errors[0]
            return found

        try:
            return await self.breaker.ask(call)
        except TransientError as error:
            return tuple((key, error) for key in keys)
