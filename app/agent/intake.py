"""What a signal means: open an incident, join one, wait, or be ignored, and why.

`Intake.accept` is the one door for HTTP, webhooks, pollers and watchers. The
judgement is pure and runs inside the store's transaction, so that a signal and
what became of it are durable together (promise 9).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from app.agent.breach import Breach, Limits
from app.agent.clock_jumps import ahead
from app.agent.levels import without_future
from app.agent.models import (
    Alert,
    Change,
    ChangeKind,
    ClusterCondition,
    Condition,
    ConfigChange,
    Deploy,
    DeployStatus,
    Disposition,
    DispositionKind,
    Incident,
    IncidentState,
    MetricSample,
    ServiceKey,
    Signal,
    SliSample,
    Trigger,
)
from app.agent.ports import Accepted, IntakeVerdict, Runner, ServiceLevels, SignalStore
from app.agent.slo import SloThresholds

POLLED = "prometheus"
"""The source of samples that the agent's own poller tells."""

LONGEST_RHYTHM = timedelta(minutes=15)
"""Samples pushed further apart than this never make one breach, unless the breach is asked to last longer."""

RESOLVED_KEPT = 16

_CONDITION_TRIGGERS = {
    Condition.CRASH_LOOP_BACK_OFF: Trigger.CRASH_LOOP,
    Condition.OOM_KILLED: Trigger.CRASH_LOOP,
    Condition.IMAGE_PULL_BACK_OFF: Trigger.DEPLOY_FAILED,
    Condition.PROGRESS_DEADLINE_EXCEEDED: Trigger.DEPLOY_FAILED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judged:
    """What a payload says about its service, before the open incident is considered."""

    triggers: tuple[Trigger, ...] = ()
    healthy_reason: str = ""
    unsustained: tuple[str, ...] = ()
    breaching: tuple[Trigger, ...] = ()
    """Above the SLO, for however short: the duration guards opening, not what an open incident is about."""
    levels: ServiceLevels | None = None
    change: Change | None = None
    joins: bool = True
    """Worth keeping with an open incident."""
    may_be_quieted: bool = True
    """The same symptom again after an unhealed incident says nothing new."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IntakeRules:
    """The pure `IntakeDecider` for one set of thresholds."""

    slo: SloThresholds

    def __call__(
        self,
        signal: Signal,
        levels: ServiceLevels | None,
        open_incident: Incident | None,
        last_closed: Incident | None,
    ) -> IntakeVerdict:
        known, set_aside = without_future(levels or ServiceLevels(key=signal.key), signal.received_at)
        verdict = self._decided(signal, known, open_incident, last_closed)
        if set_aside is None:
            return verdict
        disposition = replace(verdict.disposition, reason=f"{verdict.disposition.reason} ({set_aside})")
        return replace(verdict, disposition=disposition, levels=verdict.levels or known)

    def _decided(
        self,
        signal: Signal,
        levels: ServiceLevels,
        open_incident: Incident | None,
        last_closed: Incident | None,
    ) -> IntakeVerdict:
        judged = self._judge(signal, levels)
        if open_incident is not None:
            return _with_open_incident(signal, judged, open_incident)
        if judged.triggers:
            quiet = self._quieted(signal, judged, last_closed)
            if quiet is None:
                return _verdict(
                    judged,
                    DispositionKind.OPENED,
                    ", ".join(judged.triggers),
                    triggers=judged.triggers,
                    release_pending=True,
                )
            return _verdict(judged, DispositionKind.IGNORED, quiet)
        if judged.unsustained:
            reason = "; ".join(judged.unsustained)
            return _verdict(judged, DispositionKind.PENDING, reason)
        return _verdict(judged, DispositionKind.IGNORED, judged.healthy_reason)

    def breaching(self, levels: ServiceLevels) -> tuple[Trigger, ...]:
        """The triggers a service's levels amount to now, however short the breach (run-once)."""
        found = []
        if levels.error_rate_breach_since is not None:
            found.append(Trigger.HIGH_ERROR_RATE)
        if levels.latency_breach_since is not None:
            found.append(Trigger.HIGH_LATENCY)
        found.extend(_CONDITION_TRIGGERS[c] for c in levels.conditions)
        return tuple(dict.fromkeys(found))

    def _judge(self, signal: Signal, levels: ServiceLevels) -> _Judged:
        match signal.payload:
            case MetricSample() as sample:
                return self._judge_sample(signal, sample, levels)
            case Deploy() as deploy:
                return _judge_deploy(signal, deploy)
            case ConfigChange() as change:
                return _Judged(
                    healthy_reason="a configuration change: kept for diagnosis",
                    change=Change(
                        kind=change.kind, key=signal.key, at=signal.observed_at, summary=change.summary
                    ),
                )
            case Alert() as alert:
                return _judge_alert(alert, levels)
            case ClusterCondition() as condition:
                return _judge_condition(condition, levels)

    def _judge_sample(self, signal: Signal, sample: MetricSample, levels: ServiceLevels) -> _Judged:
        # A clock that runs ahead must not make every later sample look late.
        at = min(signal.observed_at, signal.received_at)
        last = levels.last_sample_at
        late = last is not None and at < last
        gap = self._gap(levels)
        error = _error_rate(levels).told(sample.error_rate, at, self._limits(self.slo.max_error_rate, gap))
        latency = _latency(levels).told(
            sample.p95_latency_ms, at, self._limits(self.slo.max_p95_latency_ms, gap)
        )
        crash_is_news = sample.crash_looping is not None and (
            levels.crash_told_at is None or at >= levels.crash_told_at
        )
        crashing = sample.crash_looping if crash_is_news else None
        triggers: list[Trigger] = []
        breaching: list[Trigger] = []
        unsustained: list[str] = []
        for value, threshold, breach, trigger in (
            (sample.error_rate, self.slo.max_error_rate, error, Trigger.HIGH_ERROR_RATE),
            (sample.p95_latency_ms, self.slo.max_p95_latency_ms, latency, Trigger.HIGH_LATENCY),
        ):
            if value is None or value <= threshold or not breach.includes(at):
                continue
            breaching.append(trigger)
            if breach.lasted >= self.slo.breach_for:
                triggers.append(trigger)
            else:
                unsustained.append(
                    f"{trigger} for {breach.lasted.total_seconds():.0f} s of "
                    f"{self.slo.breach_for.total_seconds():.0f} s"
                )
        if crashing:
            triggers = [*breaching, Trigger.CRASH_LOOP]
        after = replace(
            levels,
            error_rate_breach_since=error.since,
            error_rate_breach_until=error.until,
            error_rate_clear_at=error.clear_at,
            latency_breach_since=latency.since,
            latency_breach_until=latency.until,
            latency_clear_at=latency.clear_at,
            conditions=_with_condition(levels.conditions, Condition.CRASH_LOOP_BACK_OFF, crashing),
            crash_told_at=at if crash_is_news else levels.crash_told_at,
        )
        if not late:
            newest = SliSample(at=at, error_rate=sample.error_rate, p95_latency_ms=sample.p95_latency_ms)
            after = replace(
                after, last_sample_at=at, last_sample=newest, rhythm_seconds=_rhythm(signal, last, at)
            )
        return _Judged(
            triggers=tuple(triggers),
            breaching=tuple(breaching),
            unsustained=tuple(unsustained),
            healthy_reason=f"older than the newest sample ({last.isoformat()})"
            if late and last is not None
            else "within the SLO",
            joins=bool(triggers or unsustained),
            levels=after,
        )

    def _gap(self, levels: ServiceLevels) -> timedelta:
        """How far apart two samples of one breach may be: further where they come further apart."""
        if levels.rhythm_seconds is None:
            return self.slo.longest_gap
        return max(self.slo.longest_gap, 2 * timedelta(seconds=levels.rhythm_seconds))

    def _limits(self, threshold: float, gap: timedelta) -> Limits:
        return Limits(threshold=threshold, clear_below=threshold * self.slo.clear_ratio, gap=gap)

    def _quieted(self, signal: Signal, judged: _Judged, last: Incident | None) -> str | None:
        """Why symptoms that an unhealed incident has already reported open no other, or None."""
        if last is None or last.closed_at is None or not judged.may_be_quieted:
            return None
        if ahead(last.closed_at, signal.received_at):
            return None  # how long ago it ended cannot be known: the clock went back
        unhealed = last.state in (IncidentState.ESCALATED, IncidentState.PROPOSED)
        news = set(judged.triggers) - set(last.triggers) or (last.stale and not signal.stale)
        if not unhealed or news or signal.received_at - last.closed_at >= self.slo.reopen_after:
            return None
        return (
            f"the same symptoms as incident {last.id}, which ended {last.state} at "
            f"{last.closed_at.isoformat()} and is with a person"
        )


def _judge_deploy(signal: Signal, deploy: Deploy) -> _Judged:
    failed = deploy.status is DeployStatus.FAILED
    return _Judged(
        triggers=(Trigger.DEPLOY_FAILED,) if failed else (),
        healthy_reason=f"deploy of {deploy.version} {deploy.status}: kept for diagnosis",
        may_be_quieted=False,
        change=Change(
            kind=ChangeKind.DEPLOY,
            key=signal.key,
            at=signal.observed_at,
            summary=f"deploy of {deploy.version} {deploy.status}",
            version=deploy.version,
            irreversible=deploy.irreversible,
        ),
    )


def _error_rate(levels: ServiceLevels) -> Breach:
    return _known(
        levels, levels.error_rate_breach_since, levels.error_rate_breach_until, levels.error_rate_clear_at
    )


def _latency(levels: ServiceLevels) -> Breach:
    return _known(levels, levels.latency_breach_since, levels.latency_breach_until, levels.latency_clear_at)


def _known(
    levels: ServiceLevels, since: datetime | None, until: datetime | None, clear_at: datetime | None
) -> Breach:
    if since is None:
        return Breach(clear_at=clear_at)
    # An older program remembers no end of a breach: it took every sample for one.
    return Breach(since=since, until=until or levels.last_sample_at or since, clear_at=clear_at)


def _rhythm(signal: Signal, last: datetime | None, at: datetime) -> float | None:
    """How far apart samples are pushed; the poller withholds healthy ones, which is no rhythm."""
    if signal.source == POLLED or last is None or at - last > LONGEST_RHYTHM:
        return None
    return (at - last).total_seconds() or None


def _judge_alert(alert: Alert, levels: ServiceLevels) -> _Judged:
    identity = f"{alert.fingerprint}@{alert.starts_at.isoformat()}"
    if not alert.firing:
        others = tuple(one for one in levels.resolved_alerts if one != identity)
        return _Judged(
            healthy_reason=f"alert {alert.name} resolved, and no incident is open",
            levels=replace(levels, resolved_alerts=(*others, identity)[-RESOLVED_KEPT:]),
        )
    if identity in levels.resolved_alerts:
        return _Judged(healthy_reason=f"alert {alert.name} was told resolved before", joins=False)
    if alert.trigger is None:
        return _Judged(healthy_reason=f"alert {alert.name} stands for no trigger (ALERT_TRIGGERS names none)")
    return _Judged(triggers=(alert.trigger,))


def _judge_condition(told: ClusterCondition, levels: ServiceLevels) -> _Judged:
    conditions = _with_condition(levels.conditions, told.condition, told.present)
    after = replace(levels, conditions=conditions)
    if not told.present:
        return _Judged(healthy_reason=f"{told.condition} cleared, and no incident is open", levels=after)
    return _Judged(triggers=(_CONDITION_TRIGGERS[told.condition],), levels=after)


def _with_condition(
    conditions: tuple[Condition, ...], condition: Condition, present: bool | None
) -> tuple[Condition, ...]:
    if present is None:
        return conditions
    others = tuple(c for c in conditions if c is not condition)
    return (*others, condition) if present else others


def _with_open_incident(signal: Signal, judged: _Judged, incident: Incident) -> IntakeVerdict:
    if not judged.joins:
        return _verdict(judged, DispositionKind.IGNORED, judged.healthy_reason)
    told_too_late = signal.stale and not incident.stale
    found = tuple(dict.fromkeys((*judged.breaching, *judged.triggers)))
    added = () if told_too_late else found
    reason = ", ".join(found) or "; ".join(judged.unsustained) or _plain(judged)
    if told_too_late:
        reason += " (stale: adds no trigger)"
    return _verdict(
        judged,
        DispositionKind.JOINED,
        reason,
        triggers=added,
        release_pending=bool(added),
    )


def _plain(judged: _Judged) -> str:
    return judged.healthy_reason.removesuffix(", and no incident is open")


def _verdict(
    judged: _Judged,
    kind: DispositionKind,
    reason: str,
    *,
    triggers: tuple[Trigger, ...] = (),
    release_pending: bool = False,
) -> IntakeVerdict:
    return IntakeVerdict(
        disposition=Disposition(kind=kind, reason=reason),
        levels=judged.levels,
        triggers=triggers,
        change=judged.change,
        release_pending=release_pending,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Intake:
    """The one function that every source of signals ends in."""

    store: SignalStore
    rules: IntakeRules
    runner: Runner
    dry_run: bool

    async def accept(
        self,
        signals: Sequence[Signal],
        *,
        idempotency_key: str | None = None,
        request_hash: str | None = None,
    ) -> tuple[Accepted, ...]:
        """Make signals durable, decide each, and wake the incidents they concern.

        When this returns the caller may acknowledge. Waking comes after the
        commit and may be lost in a crash: the sweep finds open incidents again.
        """
        accepted = await self.store.accept(
            signals,
            self.rules,
            dry_run=self.dry_run,
            idempotency_key=idempotency_key,
            request_hash=request_hash,
        )
        touched = {
            a.disposition.incident_id
            for a in accepted
            if a.disposition.kind in (DispositionKind.OPENED, DispositionKind.JOINED)
        }
        for incident_id in touched:
            if incident_id is not None:
                await self.runner.wake(incident_id)
        return accepted

    async def open_now(self, key: ServiceKey, at: datetime) -> None:
        """Open an incident from breaches on record, however short (run-once)."""
        levels = await self.store.levels(key)
        triggers = self.rules.breaching(levels) if levels is not None else ()
        if triggers:
            await self.store.open_from_pending(key, triggers, dry_run=self.dry_run, at=at)
