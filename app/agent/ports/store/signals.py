"""The durable intake of signals, and the pure decisions that run inside its transaction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypeAlias

import msgspec

from app.agent.freshness.reasons import Reason
from app.agent.ids import IncidentId, ServiceKey, SignalId
from app.agent.models import (
    Change,
    Condition,
    Disposition,
    Incident,
    PostedSamples,
    Signal,
    SliSample,
    Trigger,
)
from app.agent.slo import Breach, SloThresholds


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalRecord:
    """An accepted signal and its disposition."""

    signal: Signal
    disposition: Disposition


class ServiceLevels(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The state per service that intake needs for durations and hysteresis; one bounded row.

    Default values are not stored, which are most fields of a healthy service.

    Times are event times. A `*_breach_since` is set while the indicator has been above its threshold and
    not yet below its clearing level.
    """

    key: ServiceKey
    error_rate_breach_since: datetime | None = None
    latency_breach_since: datetime | None = None
    conditions: tuple[Condition, ...] = ()
    """The current faults in the cluster; a crash loop reported by a sample counts as CRASH_LOOP_BACK_OFF."""
    last_sample_at: datetime | None = None
    last_sample: SliSample | None = None
    error_rate_breach_until: datetime | None = None
    """The newest sample that keeps the breach on."""
    latency_breach_until: datetime | None = None
    error_rate_clear_at: datetime | None = None
    """The newest sample with a healthy indicator: older breach samples no longer count."""
    latency_clear_at: datetime | None = None
    crash_told_at: datetime | None = None
    """The newest sample that reported whether the service crash loops."""
    rhythm_seconds: float | None = None
    """How far apart the last two pushed samples were; None where that says nothing."""
    resolved_alerts: tuple[str, ...] = ()
    """The last alerts that were reported as resolved: an older report of one as firing does not count."""
    measured_error_rate: Breach = msgspec.field(default_factory=Breach)
    """The measurements of the agent's own poller, separate from posted samples."""
    measured_latency: Breach = msgspec.field(default_factory=Breach)
    deploy_succeeded_at: datetime | None = None
    """The newest deploy that was reported as succeeded: a failure from before it is over."""
    watchdog_at: datetime | None = None
    """When the watchdog alert was last delivered; only on record of the source of alerts."""

    @property
    def breached(self) -> tuple[bool, bool]:
        """Whether a breach of the error rate, and one of the latency, is on record, by any sender."""
        return (
            self.error_rate_breach_since is not None or self.measured_error_rate.since is not None,
            self.latency_breach_since is not None or self.measured_latency.since is not None,
        )

    @property
    def breached_since(self) -> datetime | None:
        """The first sample of the oldest breach on record, by any sender; None without one."""
        known = (
            self.error_rate_breach_since,
            self.latency_breach_since,
            self.measured_error_rate.since,
            self.measured_latency.since,
        )
        return min((since for since in known if since is not None), default=None)

    reasons: tuple[Reason, ...] = ()
    """Reported reasons for an action on the service, withdrawn or not (promise 13); bounded by
    `REASONS_KEPT` and `ALERTS_KEPT` of `app.agent.freshness.memory`."""


class IntakeVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """The pure decision on one signal: computed by the observer inside the intake transaction."""

    disposition: Disposition
    """`incident_id` may be left out for JOINED and OPENED: the store fills it in."""
    levels: ServiceLevels | None
    """New per-service state, or None to leave it."""
    triggers: tuple[Trigger, ...] = ()
    """What this signal adds to the incident it opens or joins."""
    change: Change | None = None
    """A change to remember for diagnosis."""
    release_pending: bool = False
    """The service's pending signals join the same incident."""
    open_limit: int | None = None
    """An opening is queued while its sender has so many incidents of unknown services open; None: never."""
    service_limit: int | None = None
    """The number of services on record from which no further one is added; None: no limit."""


class IntakeDecider(Protocol):
    """The observer's pure judgement, handed to the store so that it runs inside the transaction."""

    def __call__(
        self,
        signal: Signal,
        levels: ServiceLevels | None,
        open_incident: Incident | None,
        last_closed: Incident | None,
    ) -> IntakeVerdict:
        """`last_closed` is the service's incident with the newest `closed_at`, if any."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeat:
    """The effect of a signal that was delivered before: the state of the service after it."""

    levels: ServiceLevels
    fires_again: bool = False
    """It is true once more: to be decided as a new signal, not as a duplicate."""


class RepeatDecider(Protocol):
    """The pure judgement on a signal that repeats an earlier one."""

    def __call__(
        self, signal: Signal, levels: ServiceLevels | None, open_incident: Incident | None
    ) -> Repeat | None:
        """None if it adds nothing new."""
        ...


class SampleRules(IntakeDecider, Protocol):
    """The judgement on samples, with the objectives by which one is healthy."""

    @property
    def slo(self) -> SloThresholds: ...

    @property
    def again(self) -> RepeatDecider: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """The answer to one accepted signal; durable when this exists."""

    signal_id: SignalId
    disposition: Disposition


class HealthySamples(msgspec.Struct, frozen=True):
    """The answer to a delivery of which every sample is healthy: one reason for all, and an id for each."""

    signal_ids: Sequence[SignalId]
    disposition: Disposition

    def accepted(self) -> tuple[Accepted, ...]:
        """The answer to each sample."""
        return tuple(Accepted(signal_id=one, disposition=self.disposition) for one in self.signal_ids)


SamplesAnswer: TypeAlias = HealthySamples | tuple[Accepted, ...]
"""The answer to a delivery of samples."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Queued:
    """Openings of one sender that wait until others of its incidents have ended."""

    sender: str
    waiting: int
    newest: IncidentId | None
    """The newest open incident of that sender."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dequeued:
    """The result of one pass over the queued openings, and the number left."""

    ended: int
    """Signals that have another disposition now."""
    queued: tuple[Queued, ...]


class SignalRepository(Protocol):
    """Durable intake."""

    async def accept(
        self,
        signals: Sequence[Signal],
        decide: IntakeDecider,
        *,
        again: RepeatDecider | None = None,
        dry_run: bool,
        idempotency_key: str | None = None,
        request_hash: str | None = None,
    ) -> tuple[Accepted, ...]:
        """Record signals, decide each, open or join incidents: in order, all durable when it returns.

        A delivery of up to a hundred signals is one transaction, shared with others that wait;
        a larger one is recorded in parts of that size. If it fails in
        between, the same call again completes it.

        A `dedup_key` seen before gets the disposition deduplicated without `decide` being asked; `again`
        says what the repeat means for the service's levels, and whether it is to be decided as a new
        signal. With an `idempotency_key` seen before (kept 24 h) and an equal `request_hash` the first
        answer is returned and nothing is recorded; with another hash it raises `Invalid`. At most one
        incident per service is open, regardless of concurrent calls. New incidents get the state OPEN, the
        `dry_run` given, and a first timeline entry.
        """
        ...

    async def accept_samples(
        self, posted: PostedSamples, rules: SampleRules, *, dry_run: bool
    ) -> SamplesAnswer:
        """Record samples as `accept` records signals of the same content, with ids of the store's choice."""
        ...

    def post_samples(
        self,
        posted: PostedSamples,
        rules: SampleRules,
        *,
        dry_run: bool,
        done: Callable[[SamplesAnswer | Exception], None],
    ) -> None:
        """The same for up to a hundred samples, from the thread of the event loop and without a task.

        `done` is called there once, with the answer when it is durable, or with what was raised.
        """
        ...

    async def get(self, signal_id: SignalId) -> SignalRecord | None: ...

    async def known(self, dedup_keys: Sequence[str]) -> frozenset[str]:
        """The keys among these that a stored signal has."""
        ...

    async def of_incident(self, incident_id: IncidentId, limit: int) -> tuple[Signal, ...]:
        """The signals that opened or joined an incident, oldest first: the first one and the newest."""
        ...

    async def pending_services(self, service: str, environment: str | None) -> tuple[ServiceKey, ...]:
        """Services of that name with pending signals or current levels on record."""
        ...

    async def levels(self, key: ServiceKey) -> ServiceLevels | None: ...

    async def open_from_pending(
        self, key: ServiceKey, triggers: Sequence[Trigger], *, dry_run: bool, at: datetime
    ) -> IncidentId | None:
        """Open an incident now from a service's pending signals (run-once); None without any.

        If one is open already, the pending signals join it.
        """
        ...

    async def open_queued(self, decide: IntakeDecider, *, dry_run: bool, limit: int) -> Dequeued:
        """Decide queued openings again, oldest first and every sender in turn, up to `limit` in all."""
        ...

    async def expire_pending(self, older_than: datetime) -> int:
        """End pending signals received before that with the disposition expired; how many.

        In bounded transactions, at most 10,000 of them, oldest first. Queued openings do
        not expire.
        """
        ...

    async def prune(self, older_than: datetime) -> int:
        """Forget signals received before that which ended without an incident, and changes as old; how many.

        In bounded transactions, at most 10,000 of each, oldest first. Signals that opened or joined an
        incident are kept permanently, and pending signals until their end; a first signal is kept as long
        as a duplicate of it. Deleted signals are counted for the audit.
        """
        ...

    async def samples(self, key: ServiceKey, since: datetime) -> tuple[SliSample, ...]:
        """Metric samples among the signals since then, oldest first, at most 1,000.

        Samples from the agent's own poller are marked as measured.
        """
        ...

    async def changes(self, since: datetime, *, of: ServiceKey | None = None) -> tuple[Change, ...]:
        """Changes to any service, or `of` one, since then, newest first, at most 500."""
        ...
