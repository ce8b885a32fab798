"""The disposition of a signal: open an incident, join one, wait, or be ignored, with the reason.

`Intake.accept` is the only entry point for HTTP, webhooks, pollers and watchers. The
decision is pure and runs inside the store's transaction, so that a signal and its
disposition are durable together (promise 9).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import msgspec
from msgspec import structs

from app import spans
from app.agent.evidence.conditions import CONDITION_TRIGGERS
from app.agent.evidence.releases import change_of
from app.agent.freshness.clock_jumps import ahead
from app.agent.freshness.firings import is_late, polled_alert
from app.agent.freshness.levels import without_future
from app.agent.freshness.memory import opened_by
from app.agent.freshness.own_alerts import is_own_alert
from app.agent.freshness.reasons import Reason, alert_subject, find
from app.agent.freshness.reports import (
    remember_condition,
    remember_level,
    remember_signal,
    remembers,
    repeated,
)
from app.agent.ids import ServiceKey
from app.agent.models import (
    ALERTS_SOURCE,
    POLLED,
    WATCHED,
    Alert,
    Change,
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
    Signal,
    SliSample,
    Trigger,
    VerdictKind,
)
from app.agent.ports.store.signals import (
    Accepted,
    Dequeued,
    IntakeVerdict,
    Repeat,
    ServiceLevels,
    SignalRepository,
)
from app.agent.ports.workers import Runner
from app.agent.slo import Breach, BreachLimits, SloThresholds

log = logging.getLogger(__name__)

OWN_SOURCES = frozenset({POLLED, WATCHED})

LONGEST_RHYTHM = timedelta(minutes=15)
"""Samples pushed further apart than this never make one breach, unless the breach is asked to last longer."""

RESOLVED_KEPT = 16
_WITHIN = "within the SLO"


class _Judged(msgspec.Struct, frozen=True, kw_only=True):
    """The meaning of a payload for its service, without regard to an open incident."""

    triggers: tuple[Trigger, ...] = ()
    healthy_reason: str = ""
    unsustained: tuple[str, ...] = ()
    breaching: tuple[Trigger, ...] = ()
    """Above the SLO for any duration; the duration limits opening an incident, not joining one."""
    levels: ServiceLevels | None = None
    change: Change | None = None
    joins: bool = True
    """Worth keeping with an open incident."""
    may_be_quieted: bool = True
    """Whether the same symptom recurs after an incident without recovery."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IntakeRules:
    """The pure `IntakeDecider` for one set of thresholds."""

    slo: SloThresholds
    max_open_per_sender: int = 0
    """Above it a sender's openings for services unknown to the agent are queued; 0: no limit."""
    max_services: int = 0
    """So many services are remembered at most by what is reported; 0: no limit."""
    queued: bool = False
    """The signals were queued: stored records may be newer."""

    def __call__(
        self,
        signal: Signal,
        levels: ServiceLevels | None,
        open_incident: Incident | None,
        last_closed: Incident | None,
    ) -> IntakeVerdict:
        own = self.slo.of(signal.key)
        if own is not self.slo:
            return replace(self, slo=own)(signal, levels, open_incident, last_closed)
        elsewhere = _of_another_cluster(signal, open_incident)
        if elsewhere is not None:
            return IntakeVerdict(
                disposition=Disposition(kind=DispositionKind.IGNORED, reason=elsewhere), levels=None
            )
        present, set_aside = levels or ServiceLevels(key=signal.key), None
        if not self.queued:
            present, set_aside = without_future(present, signal.received_at)
        verdict = self._decided(signal, present, levels, open_incident, last_closed)
        if levels is None and self.max_services and signal.source not in OWN_SOURCES:
            verdict = structs.replace(verdict, service_limit=self.max_services)
        if set_aside is None:
            return verdict
        disposition = replace(verdict.disposition, reason=f"{verdict.disposition.reason} ({set_aside})")
        return structs.replace(verdict, disposition=disposition, levels=verdict.levels or present)

    def _decided(
        self,
        signal: Signal,
        present: ServiceLevels,
        stored: ServiceLevels | None,
        open_incident: Incident | None,
        last_closed: Incident | None,
    ) -> IntakeVerdict:
        known = self._known(signal, present)
        judged = _remembering(self._judge(signal, known), signal, known, stored)
        if open_incident is not None:
            return _with_open_incident(signal, judged, open_incident)
        if judged.triggers:
            broke = _broke_after_own_alert(signal, judged, last_closed)
            quiet = None if broke else self._quieted(signal, judged, last_closed)
            if quiet is None:
                return _verdict(
                    _opened_by(signal, judged, known),
                    DispositionKind.OPENED,
                    ", ".join(judged.triggers),
                    triggers=judged.triggers,
                    release_pending=True,
                    open_limit=self._open_limit(signal),
                )
            return _verdict(judged, DispositionKind.IGNORED, quiet)
        if judged.unsustained:
            reason = "; ".join(judged.unsustained)
            return _verdict(judged, DispositionKind.PENDING, reason)
        return _verdict(judged, DispositionKind.IGNORED, judged.healthy_reason)

    def _known(self, signal: Signal, levels: ServiceLevels | None) -> ServiceLevels:
        """What is remembered of the service; an alert that fires again after its resolution is not over."""
        known = levels or ServiceLevels(key=signal.key)
        alert = signal.payload
        if isinstance(alert, Alert) and alert.firing and alert.identity in known.resolved_alerts:
            repeat = self.again(signal, known, None)
            return repeat.levels if repeat is not None and repeat.fires_again else known
        return known

    def again(
        self, signal: Signal, levels: ServiceLevels | None, open_incident: Incident | None
    ) -> Repeat | None:
        """What a repeated delivery adds: an alert still fires, has ended, or fires again."""
        if _of_another_cluster(signal, open_incident) is not None:
            return None
        known = levels or ServiceLevels(key=signal.key)
        heard = _heard(signal, known)
        if heard is not None:
            return Repeat(levels=heard, fires_again=False)
        reasons, fires_again = repeated(known.reasons, signal)
        if reasons == known.reasons:
            return None
        after = structs.replace(known, reasons=reasons)
        if fires_again and isinstance(signal.payload, Alert):
            identity = signal.payload.identity
            after = structs.replace(
                after, resolved_alerts=tuple(a for a in after.resolved_alerts if a != identity)
            )
        return Repeat(levels=after, fires_again=fires_again)

    def _open_limit(self, signal: Signal) -> int | None:
        """The agent's own observations are not limited: its cluster bounds them."""
        return None if signal.source in OWN_SOURCES else self.max_open_per_sender or None

    def breaching(self, levels: ServiceLevels) -> tuple[Trigger, ...]:
        """The triggers a service's levels amount to now, however short the breach (run-once)."""
        found = []
        errors, latency = levels.breached
        if errors:
            found.append(Trigger.HIGH_ERROR_RATE)
        if latency:
            found.append(Trigger.HIGH_LATENCY)
        found.extend(CONDITION_TRIGGERS[c] for c in levels.conditions)
        return tuple(dict.fromkeys(found))

    def _judge(self, signal: Signal, levels: ServiceLevels) -> _Judged:
        match signal.payload:
            case MetricSample() as sample:
                return self._judge_sample(signal, sample, levels)
            case Deploy() as deploy:
                return _judge_deploy(signal, deploy, levels)
            case ConfigChange() as change:
                return _Judged(
                    healthy_reason="a configuration change: kept for diagnosis",
                    change=Change(
                        kind=change.kind, key=signal.key, at=signal.observed_at, summary=change.summary
                    ),
                )
            case Alert() as alert if signal.key == ALERTS_SOURCE and alert.trigger is None:
                return _judge_watchdog(signal, alert, levels)
            case Alert() as alert:
                return _judge_alert(signal, alert, levels)
            case ClusterCondition() as condition:
                return _judge_condition(condition, levels)

    def _judge_sample(self, signal: Signal, sample: MetricSample, levels: ServiceLevels) -> _Judged:
        healthy = self._judge_healthy(signal, sample, levels)
        return self._judge_any_sample(signal, sample, levels) if healthy is None else healthy

    def _judge_healthy(self, signal: Signal, sample: MetricSample, levels: ServiceLevels) -> _Judged | None:
        """What `_judge_any_sample` finds in a sample within the SLO, of a service that has been well.

        Most samples are such, and it takes a fraction of the time. None for all others.
        """
        at = min(signal.observed_at, signal.received_at)
        last, errors, latency = levels.last_sample_at, sample.error_rate, sample.p95_latency_ms
        if (
            signal.source == POLLED
            or (last is not None and at < last)
            or sample.crash_looping
            or (errors is not None and errors > self.slo.max_error_rate)
            or (latency is not None and latency > self.slo.max_p95_latency_ms)
            or self.slo.too_few(sample.request_rate)
            or not _has_been_well(levels)
        ):
            return None
        changed: dict[str, Any] = {}
        if errors is not None:
            changed["error_rate_clear_at"] = _later(levels.error_rate_clear_at, at)
        if latency is not None:
            changed["latency_clear_at"] = _later(levels.latency_clear_at, at)
        if sample.crash_looping is not None:
            changed["crash_told_at"] = _later(levels.crash_told_at, at)
        after = structs.replace(
            levels,
            last_sample_at=at,
            last_sample=SliSample(at=at, error_rate=errors, p95_latency_ms=latency),
            rhythm_seconds=_rhythm(last, at),
            **changed,
        )
        return _Judged(healthy_reason=_WITHIN, joins=False, levels=after)

    def _judge_any_sample(self, signal: Signal, sample: MetricSample, levels: ServiceLevels) -> _Judged:
        # A clock that runs ahead must not make every later sample count as late.
        at = min(signal.observed_at, signal.received_at)
        own = signal.source == POLLED
        last = levels.last_sample_at
        late = last is not None and at < last and not own
        if self.slo.too_few(sample.request_rate):
            return _Judged(
                healthy_reason=f"{sample.request_rate:.2f} requests/s are too few to evaluate "
                f"(the minimum is {self.slo.min_request_rate:g} requests/s)",
                joins=False,
            )
        error, latency = self._breaches(sample, at, levels, own=own)
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
                    f"{trigger.replace('_', ' ')} for {breach.lasted.total_seconds():.0f} s of "
                    f"{self.slo.breach_for.total_seconds():.0f} s"
                )
        if crashing:
            triggers = [*breaching, Trigger.CRASH_LOOP]
        changed = self._measured(levels, sample, at, error, latency) if own else _posted(error, latency)
        if not late and not own:
            newest = SliSample(at=at, error_rate=sample.error_rate, p95_latency_ms=sample.p95_latency_ms)
            changed |= {"last_sample_at": at, "last_sample": newest, "rhythm_seconds": _rhythm(last, at)}
        after = structs.replace(
            levels,
            **changed,
            conditions=_with_condition(levels.conditions, Condition.CRASH_LOOP_BACK_OFF, crashing),
            crash_told_at=at if crash_is_news else levels.crash_told_at,
            reasons=self._reasons(signal, sample, levels.reasons, (error, latency)),
        )
        return _Judged(
            triggers=tuple(triggers),
            breaching=tuple(breaching),
            unsustained=tuple(unsustained),
            healthy_reason=f"older than the newest sample ({last.isoformat()})"
            if late and last is not None
            else _WITHIN,
            joins=bool(triggers or unsustained),
            levels=after,
        )

    def _breaches(
        self, sample: MetricSample, at: datetime, levels: ServiceLevels, *, own: bool
    ) -> tuple[Breach, Breach]:
        """Error rate and latency after the sample; the agent's own and posted ones are two histories."""
        gap = self.slo.longest_gap if own else self._gap(levels)
        errors = levels.measured_error_rate if own else _error_rate(levels)
        latency = levels.measured_latency if own else _latency(levels)
        return (
            errors.told(sample.error_rate, at, self._limits(self.slo.max_error_rate, gap)),
            latency.told(sample.p95_latency_ms, at, self._limits(self.slo.max_p95_latency_ms, gap)),
        )

    def _measured(
        self, levels: ServiceLevels, sample: MetricSample, at: datetime, errors: Breach, latency: Breach
    ) -> dict[str, Any]:
        """The fields of the levels after a sample of the agent's own.

        One inside its objective also ends a breach that was posted.
        """
        gap = self._gap(levels)
        posted_errors, posted_latency = _error_rate(levels), _latency(levels)
        if errors.since is None:
            limits = self._limits(self.slo.max_error_rate, gap)
            posted_errors = posted_errors.told(sample.error_rate, at, limits)
        if latency.since is None:
            limits = self._limits(self.slo.max_p95_latency_ms, gap)
            posted_latency = posted_latency.told(sample.p95_latency_ms, at, limits)
        return {
            **_posted(posted_errors, posted_latency),
            "measured_error_rate": errors,
            "measured_latency": latency,
        }

    def _reasons(
        self,
        signal: Signal,
        sample: MetricSample,
        known: tuple[Reason, ...],
        breaches: tuple[Breach, Breach],
    ) -> tuple[Reason, ...]:
        """What the sample reports or withdraws, by indicator."""
        at = min(signal.observed_at, signal.received_at)
        for trigger, value, objective, breach in (
            (Trigger.HIGH_ERROR_RATE, sample.error_rate, self.slo.max_error_rate, breaches[0]),
            (Trigger.HIGH_LATENCY, sample.p95_latency_ms, self.slo.max_p95_latency_ms, breaches[1]),
        ):
            if value is None:
                continue
            above = True if value > objective and breach.includes(at) else None
            well = value <= objective * self.slo.clear_ratio
            known = remember_level(known, signal, trigger, value, breach=False if well else above)
        if sample.crash_looping is None:
            return known
        condition = Condition.CRASH_LOOP_BACK_OFF
        return remember_condition(known, signal, condition, present=sample.crash_looping)

    def _gap(self, levels: ServiceLevels) -> timedelta:
        """How far apart two samples of one breach may be: further where they come further apart."""
        if levels.rhythm_seconds is None:
            return self.slo.longest_gap
        return max(self.slo.longest_gap, 2 * timedelta(seconds=levels.rhythm_seconds))

    def _limits(self, threshold: float, gap: timedelta) -> BreachLimits:
        return BreachLimits(threshold=threshold, clear_below=threshold * self.slo.clear_ratio, gap=gap)

    def _quieted(self, signal: Signal, judged: _Judged, last: Incident | None) -> str | None:
        """Why symptoms that an unhealed incident has already reported open no other, or None."""
        if last is None or last.closed_at is None or not judged.may_be_quieted:
            return None
        if ahead(last.closed_at, signal.received_at, self.slo.reopen_after):
            return None  # how long ago it ended cannot be known: the clock went back too far
        recovered = last.verdict is not None and last.verdict.kind is VerdictKind.RECOVERED
        unhealed = not recovered and last.state in (IncidentState.ESCALATED, IncidentState.PROPOSED)
        news = set(judged.triggers) - set(last.triggers) or (last.stale and not signal.stale)
        if not unhealed or news or signal.received_at - last.closed_at >= self.slo.reopen_after:
            return None
        return (
            f"the same symptoms as incident {last.id}, which was closed as {last.state} at "
            f"{last.closed_at:%Y-%m-%d %H:%M:%S} UTC; no new incident within REOPEN_AFTER_SECONDS"
        )


def _judge_deploy(signal: Signal, deploy: Deploy, levels: ServiceLevels) -> _Judged:
    succeeded_at = levels.deploy_succeeded_at
    over = succeeded_at is not None and signal.observed_at < succeeded_at
    failed = deploy.status is DeployStatus.FAILED and not over
    reason = f"deploy of {deploy.version} {deploy.status}: kept for diagnosis"
    if over and deploy.status is DeployStatus.FAILED:
        reason = f"deploy of {deploy.version} failed, and a later one succeeded: kept for diagnosis"
    news = deploy.status is DeployStatus.SUCCEEDED and not over
    return _Judged(
        triggers=(Trigger.DEPLOY_FAILED,) if failed else (),
        healthy_reason=reason,
        may_be_quieted=False,
        change=change_of(signal.key, deploy, signal.observed_at),
        levels=structs.replace(levels, deploy_succeeded_at=min(signal.observed_at, signal.received_at))
        if news
        else None,
    )


def _has_been_well(levels: ServiceLevels) -> bool:
    """No breach, condition or reason is on record of it."""
    return (
        levels.error_rate_breach_since is None
        and levels.latency_breach_since is None
        and levels.error_rate_breach_until is None
        and levels.latency_breach_until is None
        and not levels.conditions
        and not levels.reasons
    )


def _later(before: datetime | None, at: datetime) -> datetime:
    return at if before is None or at > before else before


def _posted(errors: Breach, latency: Breach) -> dict[str, Any]:
    """The fields of the levels for the breaches that posted samples amount to."""
    return {
        "error_rate_breach_since": errors.since,
        "error_rate_breach_until": errors.until,
        "error_rate_clear_at": errors.clear_at,
        "latency_breach_since": latency.since,
        "latency_breach_until": latency.until,
        "latency_clear_at": latency.clear_at,
    }


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


def _rhythm(last: datetime | None, at: datetime) -> float | None:
    """How far apart samples are pushed."""
    if last is None or at - last > LONGEST_RHYTHM:
        return None
    return (at - last).total_seconds() or None


def _remembering(
    judged: _Judged, signal: Signal, known: ServiceLevels, stored: ServiceLevels | None
) -> _Judged:
    """The levels with the reasons that an alert, a condition or a deploy adds or withdraws."""
    payload = signal.payload
    if isinstance(payload, MetricSample | ConfigChange):
        return judged
    levels = judged.levels or known
    over = (
        isinstance(payload, Alert)
        and not judged.joins
        and payload.identity in levels.resolved_alerts
        and not remembers(levels.reasons, payload)
    )
    if not over:
        levels = structs.replace(levels, reasons=remember_signal(levels.reasons, signal))
    unchanged = judged.levels is None and levels == (stored or ServiceLevels(key=signal.key))
    return judged if unchanged else structs.replace(judged, levels=levels)


def _opened_by(signal: Signal, judged: _Judged, known: ServiceLevels) -> _Judged:
    """The levels remember in full the alert that opens an incident, and no earlier one as such.

    An alert that was delivered before may change nothing else: `known` is stored then.
    """
    levels = judged.levels or known
    reasons = _opening(signal, levels.reasons)
    return (
        judged
        if reasons == levels.reasons
        else structs.replace(judged, levels=structs.replace(levels, reasons=reasons))
    )


def _opening(signal: Signal, reasons: tuple[Reason, ...]) -> tuple[Reason, ...]:
    return opened_by(reasons, signal.payload if isinstance(signal.payload, Alert) else None)


def _broke_after_own_alert(signal: Signal, judged: _Judged, last: Incident | None) -> bool:
    """Whether an objective broke after an incident that an alert of the agent's own had opened.

    Such an alert speaks of levels within the objective: the breach is another symptom.
    """
    levels, closed_at = judged.levels, None if last is None else last.closed_at
    if closed_at is None or levels is None or not isinstance(signal.payload, MetricSample):
        return False
    if not any(one.opened and is_own_alert(one) for one in levels.reasons):
        return False
    began = (
        levels.measured_error_rate.since,
        levels.measured_latency.since,
        levels.error_rate_breach_since,
        levels.latency_breach_since,
    )
    return any(one is not None and one > closed_at for one in began)


def _heard(signal: Signal, levels: ServiceLevels) -> ServiceLevels | None:
    """The levels after a delivery of the firing watchdog alert; None for any other signal."""
    alert = signal.payload
    if signal.key != ALERTS_SOURCE or not isinstance(alert, Alert):
        return None
    if alert.trigger is not None or not alert.firing or alert.suppressed:
        return None
    return structs.replace(levels, watchdog_at=signal.received_at)


def _judge_watchdog(signal: Signal, alert: Alert, levels: ServiceLevels) -> _Judged:
    heard = _heard(signal, levels)
    what = "alerts are delivered" if heard is not None else "not firing"
    return _Judged(healthy_reason=f"watchdog {alert.name}: {what}", levels=heard, joins=False)


def _judge_alert(signal: Signal, alert: Alert, levels: ServiceLevels) -> _Judged:
    if alert.telemetry:
        return _Judged(
            healthy_reason=f"alert {alert.name} reports that a rule could not be evaluated: "
            "a telemetry outage, not a symptom of the service"
        )
    if alert.suppressed:
        return _Judged(healthy_reason=f"alert {alert.name} is suppressed: no reason for an action")
    identity = alert.identity
    if alert.polled and not alert.firing:
        found = find(levels.reasons, alert_subject(alert))
        if found is None or polled_alert(found) is None:
            said = "it was delivered, or has ended"
            return _Judged(healthy_reason=f"alert {alert.name} is no longer listed: {said}", joins=False)
    if not alert.firing:
        others = tuple(one for one in levels.resolved_alerts if one != identity)
        return _Judged(
            healthy_reason=f"alert {alert.name} resolved, and no incident is open",
            levels=structs.replace(levels, resolved_alerts=(*others, identity)[-RESOLVED_KEPT:]),
        )
    if identity in levels.resolved_alerts:
        return _Judged(healthy_reason=f"alert {alert.name} was reported as resolved before", joins=False)
    if alert.trigger is None:
        return _Judged(healthy_reason=f"alert {alert.name} has no trigger in ALERT_TRIGGERS")
    if is_late(levels.reasons, signal, alert):
        return _Judged(healthy_reason=f"alert {alert.name} has ended and fired again since", joins=False)
    return _Judged(triggers=(alert.trigger,))


def _of_another_cluster(signal: Signal, incident: Incident | None) -> str | None:
    """Why an alert does not belong to the open incident: one name in two clusters is two services."""
    named = signal.payload.cluster if isinstance(signal.payload, Alert) else ""
    if incident is None or not named or named == (incident.cluster or named):
        return None
    return (
        f"the alert is about cluster {named}, the open incident about cluster {incident.cluster}: "
        "set ALERT_HOME_LABELS to the labels of the connected cluster"
    )


def _judge_condition(told: ClusterCondition, levels: ServiceLevels) -> _Judged:
    conditions = _with_condition(levels.conditions, told.condition, told.present)
    after = structs.replace(levels, conditions=conditions)
    if not told.present:
        return _Judged(healthy_reason=f"{told.condition} cleared, and no incident is open", levels=after)
    return _Judged(triggers=(CONDITION_TRIGGERS[told.condition],), levels=after)


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
    open_limit: int | None = None,
) -> IntakeVerdict:
    return IntakeVerdict(
        disposition=Disposition(kind=kind, reason=reason),
        levels=judged.levels,
        triggers=triggers,
        change=judged.change,
        release_pending=release_pending,
        open_limit=open_limit,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Intake:
    """The function that every source of signals calls."""

    signals: SignalRepository
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
        began = spans.begun()
        accepted = await self.signals.accept(
            signals,
            self.rules,
            again=self.rules.again,
            dry_run=self.dry_run,
            idempotency_key=idempotency_key,
            request_hash=request_hash,
        )
        spans.handled(one.disposition.kind for one in accepted)
        touched = {
            a.disposition.incident_id
            for a in accepted
            if a.disposition.kind in (DispositionKind.OPENED, DispositionKind.JOINED)
        }
        for signal, one in zip(signals, accepted, strict=False):
            if one.disposition.incident_id in touched and one.disposition.incident_id is not None:
                facts = {"service": signal.key.service, "environment": signal.key.environment}
                told = {"signal": signal.id, "source": signal.source, "disposition": one.disposition.kind}
                spans.past("intake", one.disposition.incident_id, began, **facts, **told)
            if one.disposition.kind is DispositionKind.OPENED:
                reason = one.disposition.reason.replace("_", " ")
                log.info("incident %s of %s opened: %s", one.disposition.incident_id, signal.key, reason)
        for incident_id in touched:
            if incident_id is not None:
                await self.runner.wake(incident_id)
        return accepted

    async def open_queued(self, limit: int) -> Dequeued:
        """Decide queued openings again, as far as their senders' limits allow."""
        return await self.signals.open_queued(
            replace(self.rules, queued=True), dry_run=self.dry_run, limit=limit
        )

    async def open_now(self, key: ServiceKey, at: datetime) -> None:
        """Open an incident from breaches on record, however short (run-once)."""
        levels = await self.signals.levels(key)
        triggers = self.rules.breaching(levels) if levels is not None else ()
        if triggers:
            await self.signals.open_from_pending(key, triggers, dry_run=self.dry_run, at=at)
