"""The pure decision on a signal: open, join, wait, or be ignored, with the reason."""

from __future__ import annotations

from dataclasses import dataclass, replace

from msgspec import structs

from app.agent.evidence.conditions import CONDITION_TRIGGERS
from app.agent.freshness.clock_jumps import ahead
from app.agent.freshness.levels import without_future
from app.agent.freshness.memory import opened_by
from app.agent.freshness.own_alerts import is_own_alert
from app.agent.freshness.reasons import Reason
from app.agent.freshness.reports import remember_signal, remembers, repeated
from app.agent.intake.events import heard, judge_alert, judge_condition, judge_deploy, judge_watchdog
from app.agent.intake.meaning import SignalMeaning
from app.agent.intake.samples import judge_sample
from app.agent.models import (
    ALERTS_SOURCE,
    POLLED,
    WATCHED,
    Alert,
    Change,
    ClusterCondition,
    ConfigChange,
    Deploy,
    Disposition,
    DispositionKind,
    Incident,
    IncidentState,
    MetricSample,
    Signal,
    Trigger,
    VerdictKind,
)
from app.agent.ports.store.signals import IntakeVerdict, Repeat, ServiceLevels
from app.agent.slo import SloThresholds

OWN_SOURCES = frozenset({POLLED, WATCHED})


@dataclass(frozen=True, slots=True, kw_only=True)
class IntakeRules:
    """The pure `IntakeDecider` for one set of thresholds."""

    slo: SloThresholds
    max_open_per_sender: int = 0
    """Above it a sender's openings for services unknown to the agent are queued; 0: no limit."""
    max_services: int = 0
    """The maximum number of services stored because of reports; 0: no limit."""
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
        """The stored levels of the service; an alert that fires again after its resolution has not ended."""
        known = levels or ServiceLevels(key=signal.key)
        alert = signal.payload
        if isinstance(alert, Alert) and alert.firing and alert.identity in known.resolved_alerts:
            repeat = self.again(signal, known, None)
            return repeat.levels if repeat is not None and repeat.fires_again else known
        return known

    def again(
        self, signal: Signal, levels: ServiceLevels | None, open_incident: Incident | None
    ) -> Repeat | None:
        """The effect of a repeated delivery: an alert still fires, has ended, or fires again."""
        if _of_another_cluster(signal, open_incident) is not None:
            return None
        known = levels or ServiceLevels(key=signal.key)
        after = heard(signal, known)
        if after is not None:
            return Repeat(levels=after, fires_again=False)
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

    def _judge(self, signal: Signal, levels: ServiceLevels) -> SignalMeaning:
        match signal.payload:
            case MetricSample() as sample:
                return judge_sample(self.slo, signal, sample, levels)
            case Deploy() as deploy:
                return judge_deploy(signal, deploy, levels)
            case ConfigChange() as change:
                return SignalMeaning(
                    healthy_reason="a configuration change: kept for diagnosis",
                    change=Change(
                        kind=change.kind, key=signal.key, at=signal.observed_at, summary=change.summary
                    ),
                )
            case Alert() as alert if signal.key == ALERTS_SOURCE and alert.trigger is None:
                return judge_watchdog(signal, alert, levels)
            case Alert() as alert:
                return judge_alert(signal, alert, levels)
            case ClusterCondition() as condition:
                return judge_condition(condition, levels)

    def _quieted(self, signal: Signal, judged: SignalMeaning, last: Incident | None) -> str | None:
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


def _remembering(
    judged: SignalMeaning, signal: Signal, known: ServiceLevels, stored: ServiceLevels | None
) -> SignalMeaning:
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


def _opened_by(signal: Signal, judged: SignalMeaning, known: ServiceLevels) -> SignalMeaning:
    """The levels keep in full only the newest alert that opened an incident.

    An alert that was delivered before may change nothing else: then `known` is stored.
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


def _broke_after_own_alert(signal: Signal, judged: SignalMeaning, last: Incident | None) -> bool:
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


def _of_another_cluster(signal: Signal, incident: Incident | None) -> str | None:
    """Why an alert does not belong to the open incident: one name in two clusters is two services."""
    named = signal.payload.cluster if isinstance(signal.payload, Alert) else ""
    if incident is None or not named or named == (incident.cluster or named):
        return None
    return (
        f"the alert is about cluster {named}, the open incident about cluster {incident.cluster}: "
        "set ALERT_HOME_LABELS to the labels of the connected cluster"
    )


def _with_open_incident(signal: Signal, judged: SignalMeaning, incident: Incident) -> IntakeVerdict:
    if not judged.joins:
        return _verdict(judged, DispositionKind.IGNORED, judged.healthy_reason)
    reported_too_late = signal.stale and not incident.stale
    found = tuple(dict.fromkeys((*judged.breaching, *judged.triggers)))
    added = () if reported_too_late else found
    reason = ", ".join(found) or "; ".join(judged.unsustained) or _plain(judged)
    if reported_too_late:
        reason += " (stale: adds no trigger)"
    return _verdict(
        judged,
        DispositionKind.JOINED,
        reason,
        triggers=added,
        release_pending=bool(added),
    )


def _plain(judged: SignalMeaning) -> str:
    return judged.healthy_reason.removesuffix(", and no incident is open")


def _verdict(
    judged: SignalMeaning,
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
