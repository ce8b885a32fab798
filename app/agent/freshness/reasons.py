"""Reasons for an action: when each was last known to be true, and who withdrew it (promise 13).

Pure. Intake remembers for each service what was reported and what withdrew it
(`remember_*`); before every decision the loop adds what the agent sees itself
(`examined`); whether a reason stands is asked again in the transaction that
begins an action, with whatever was reported meanwhile (`Reasons.refusal`). The
agent's own look outranks every report, and what could not be measured proves nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import IntEnum, StrEnum

from app.agent.evidence.conditions import CONDITION_TRIGGERS, restarting, workload_conditions
from app.agent.models import (
    POLLED,
    WATCHED,
    Alert,
    ClusterCondition,
    Condition,
    Deploy,
    DeployStatus,
    MetricSample,
    Observation,
    Signal,
    Trigger,
)
from app.agent.slo import SloThresholds
from app.agent.workload import WorkloadView

REASONS_KEPT = 32
"""How many reasons are remembered for one service; more only where more alerts stand at once."""

ALERTS_KEPT = 64
"""How many alerts that may still fire are remembered for one service. Beyond it the oldest are merged,
into one entry for each trigger, which is no reason for an action and keeps the service from recovering."""

REPEAT_APART = timedelta(seconds=15)
"""Copies of one delivery (a retry, a second sender) arrive closer together than repeats of an alert."""

CLOCKS_APART = timedelta(seconds=60)
"""Clocks of pipeline and cluster differ by no more."""

FORGOTTEN_AFTER = timedelta(days=1)
"""An alert neither repeated nor resolved for so long keeps no incident from recovering: its end was lost."""

_ALERT_WORDS = "the alert "
_MERGED = "alerts merged "

_METRIC_TRIGGERS = frozenset({Trigger.HIGH_ERROR_RATE, Trigger.HIGH_LATENCY})


class ReasonKind(StrEnum):
    """The kind of source."""

    SAMPLE = "sample"
    ALERT = "alert"
    CONDITION = "condition"
    DEPLOY = "deploy"
    OWN_MEASUREMENT = "own_measurement"
    OWN_LOOK = "own_look"
    """What the agent sees in the cluster itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawal:
    """A reason is no longer true, or the agent's own observation contradicts it."""

    at: datetime
    by: str
    """The source that said so: a sender, or the agent itself."""
    said: str
    """A clause with a verb, for the timeline: `the alert HighErrorRate was resolved`."""
    muted: bool = False
    """People muted it, or it is not known whether they did: it may still be true, and nothing recovered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """One reason to act on a service."""

    trigger: Trigger
    kind: ReasonKind
    subject: str
    """What is claimed, so that it is found again: an alert with its start, a condition, an indicator."""
    source: str
    said: str
    """A noun phrase for the timeline: `the alert HighErrorRate`."""
    last_true_at: datetime
    withdrawn: Withdrawal | None = None
    cluster: str = ""
    """The cluster that an alert names; empty where it names none."""
    repeated_at: datetime | None = None
    """When the alert was first reported as firing once more after it had been resolved."""
    labels: tuple[tuple[str, str], ...] | None = None
    """All labels of the alert, which silences are matched with; None where they are not known."""

    @property
    def newest(self) -> datetime:
        """The newest time that it mentions."""
        found = self.last_true_at
        if self.repeated_at is not None and self.repeated_at > found:
            found = self.repeated_at
        if self.withdrawn is not None and self.withdrawn.at > found:
            found = self.withdrawn.at
        return found

    def stands(self, now: datetime, max_age: timedelta) -> bool:
        """Not withdrawn, and known to be true within `max_age` of now, whichever of two clocks is ahead."""
        return self.withdrawn is None and abs(now - self.last_true_at) <= max_age


# ---------------------------------------------------------------- what is remembered of reports


def remember_signal(known: tuple[Reason, ...], signal: Signal) -> tuple[Reason, ...]:
    """The reasons of a service after an alert, a condition or a deploy; samples go by `remember_level`."""
    match signal.payload:
        case Alert(suppressed=True) as alert:
            said = f"the alert {alert.name} was reported as suppressed"
            over = Withdrawal(at=reported_at(signal), by=signal.source, said=said, muted=True)
            return _withdraw(known, _alert_subject(alert), over)
        case Alert(trigger=None):
            return known
        case Alert() as alert:
            return _remember_alert(known, signal, alert)
        case ClusterCondition() as told:
            return remember_condition(known, signal, told.condition, present=told.present)
        case Deploy(status=DeployStatus.FAILED | DeployStatus.SUCCEEDED) as deploy:
            return _remember_deploy(known, signal, deploy)
        case _:
            return known


def remember_condition(
    known: tuple[Reason, ...], signal: Signal, condition: Condition, *, present: bool
) -> tuple[Reason, ...]:
    """A condition appeared on the workload, or cleared; a report never clears what the agent saw itself."""
    own = signal.source == WATCHED
    kind = ReasonKind.OWN_LOOK if own else ReasonKind.CONDITION
    at = min(signal.observed_at, signal.received_at)
    subject = _condition_subject(condition, kind)
    said = f"{condition} of its pods" if own else f"{condition}, reported by {signal.source}"
    if not present:
        words = f"{condition} cleared" if own else f"{condition} was reported over by {signal.source}"
        return _withdraw(known, subject, Withdrawal(at=at, by=signal.source, said=words))
    claim = Reason(
        trigger=CONDITION_TRIGGERS[condition],
        kind=kind,
        subject=subject,
        source=signal.source,
        said=said,
        last_true_at=at,
    )
    return _claim(known, claim)


def remember_level(
    known: tuple[Reason, ...], signal: Signal, trigger: Trigger, value: float | None, *, breach: bool | None
) -> tuple[Reason, ...]:
    """A sample of one indicator: `breach` says above its objective, False well below it, None in between."""
    if value is None or breach is None:
        return known
    own = signal.source == POLLED
    kind = ReasonKind.OWN_MEASUREMENT if own else ReasonKind.SAMPLE
    at = min(signal.observed_at, signal.received_at)
    figure = level_words(trigger, value)
    if breach:
        said = f"the measured {figure}" if own else f"the {figure} reported by {signal.source}"
        claim = Reason(
            trigger=trigger,
            kind=kind,
            subject=_level_subject(trigger, kind),
            source=signal.source,
            said=said,
            last_true_at=at,
        )
        return _claim(known, claim)
    words = f"{signal.source} measured" if own else f"{signal.source} reported"
    over = Withdrawal(at=at, by=signal.source, said=f"{words} the {figure}, within its objective")
    if own:  # the agent's own measurement contradicts every report too
        known = _withdraw(known, _level_subject(trigger, ReasonKind.OWN_MEASUREMENT), over)
    return _withdraw(known, _level_subject(trigger, ReasonKind.SAMPLE), over)


def from_signals(signals: Iterable[Signal], slo: SloThresholds) -> tuple[Reason, ...]:
    """The reasons that signals in their order amount to, where nothing was remembered of them."""
    known: tuple[Reason, ...] = ()
    for signal in signals:
        sample = signal.payload
        if not isinstance(sample, MetricSample):
            known = remember_signal(known, signal)
            continue
        for trigger, value, objective in (
            (Trigger.HIGH_ERROR_RATE, sample.error_rate, slo.max_error_rate),
            (Trigger.HIGH_LATENCY, sample.p95_latency_ms, slo.max_p95_latency_ms),
        ):
            above = None if value is None else value > objective
            known = remember_level(known, signal, trigger, value, breach=above)
        if sample.crash_looping is not None:
            condition = Condition.CRASH_LOOP_BACK_OFF
            known = remember_condition(known, signal, condition, present=sample.crash_looping)
    return known


def repeated(known: tuple[Reason, ...], signal: Signal) -> tuple[tuple[Reason, ...], bool]:
    """What an alert that was delivered before with the same status means, and whether it fires again.

    A repeat refreshes what it repeats. After a resolution the first firing repeat
    counts as a late copy; one that arrives `REPEAT_APART` later fires again.
    """
    alert = signal.payload
    if not isinstance(alert, Alert) or alert.trigger is None:
        return known, False
    if alert.suppressed:
        return remember_signal(known, signal), False
    before = _find(known, _alert_subject(alert))
    after = _remember_alert(known, signal, alert)
    now = _find(after, _alert_subject(alert))
    again = before is not None and before.withdrawn is not None and now is not None and now.withdrawn is None
    return after, again


def of_cluster(known: tuple[Reason, ...], cluster: str) -> tuple[Reason, ...]:
    """The reasons without those about another cluster; one that names none is about any."""
    return tuple(one for one in known if not one.cluster or not cluster or one.cluster == cluster)


def remembers(known: tuple[Reason, ...], alert: Alert) -> bool:
    """Whether anything was reported of this alert with this start."""
    return _find(known, _alert_subject(alert)) is not None


def _remember_alert(known: tuple[Reason, ...], signal: Signal, alert: Alert) -> tuple[Reason, ...]:
    assert alert.trigger is not None  # noqa: S101 - both callers have checked
    subject, at = _alert_subject(alert), reported_at(signal)
    said = _ALERT_WORDS + alert.name
    before = _find(known, subject)
    claim = Reason(
        trigger=alert.trigger,
        kind=ReasonKind.ALERT,
        cluster=alert.cluster,
        labels=alert.labels,
        subject=subject,
        source=signal.source,
        said=said,
        last_true_at=at,
    )
    if not alert.firing:
        ended = Withdrawal(
            at=max(at, signal.received_at), by=signal.source, said=f"{said} was reported as resolved"
        )
        if before is None:  # so that a copy of its firing that comes late is known to be late
            return _stored(known, replace(claim, withdrawn=ended))
        return _stored(known, replace(before, withdrawn=ended, repeated_at=None))
    if before is None or before.withdrawn is None or before.withdrawn.muted:
        newest = claim if before is None else replace(claim, last_true_at=max(at, before.last_true_at))
        return _stored(known, newest)
    if signal.received_at < before.withdrawn.at:
        return known
    if before.repeated_at is None or signal.received_at < before.repeated_at:
        return _stored(known, replace(before, repeated_at=signal.received_at))
    if signal.received_at - before.repeated_at < REPEAT_APART:
        return known
    return _stored(known, claim)


def reported_at(signal: Signal) -> datetime:
    """When the sender last knew it to be true: an alert is reported because it fires at that moment."""
    if isinstance(signal.payload, Alert) and not signal.stale:
        return signal.received_at
    return min(signal.observed_at, signal.received_at)


def _remember_deploy(known: tuple[Reason, ...], signal: Signal, deploy: Deploy) -> tuple[Reason, ...]:
    at = min(signal.observed_at, signal.received_at)
    if deploy.status is DeployStatus.SUCCEEDED:
        over = Withdrawal(at=at, by=signal.source, said=f"the deploy of {deploy.version} succeeded")
        return _withdraw(known, "deploy", over)
    claim = Reason(
        trigger=Trigger.DEPLOY_FAILED,
        kind=ReasonKind.DEPLOY,
        subject="deploy",
        source=signal.source,
        said=f"the failed deploy of {deploy.version}",
        last_true_at=at,
    )
    return _claim(known, claim)


def _claim(known: tuple[Reason, ...], claim: Reason) -> tuple[Reason, ...]:
    """With a claim that a newer withdrawal outdates, and a newer claim never makes older."""
    before = _find(known, claim.subject)
    if before is None:
        return _stored(known, claim)
    if before.withdrawn is not None and before.withdrawn.at >= claim.last_true_at:
        return known
    if before.withdrawn is None and before.last_true_at >= claim.last_true_at:
        return known
    return _stored(known, claim)


def _withdraw(known: tuple[Reason, ...], subject: str, over: Withdrawal) -> tuple[Reason, ...]:
    before = _find(known, subject)
    if before is None or before.withdrawn is not None or over.at < before.last_true_at:
        return known
    return _stored(known, replace(before, withdrawn=over))


def _find(known: Iterable[Reason], subject: str) -> Reason | None:
    return next((one for one in known if one.subject == subject), None)


def _stored(known: tuple[Reason, ...], reason: Reason) -> tuple[Reason, ...]:
    """With this reason, and without what is least needed where there are too many.

    What was withdrawn goes first, then alerts whose end was lost, then posted
    samples. An alert that may still fire is never dropped, only merged.
    """
    kept = [one for one in known if one.subject != reason.subject]
    at = reason.newest
    while len(kept) >= REASONS_KEPT:
        least = min(kept, key=lambda one: (_need(one, at), one.last_true_at))
        if _need(least, at) is _Need.STANDS:
            break
        kept.remove(least)
    return _merged((*kept, reason))


class _Need(IntEnum):
    """How much a reason is needed: the lowest goes first."""

    WITHDRAWN = 0
    FORGOTTEN = 1
    SAMPLE = 2
    STANDS = 3


def _need(reason: Reason, at: datetime) -> _Need:
    if reason.withdrawn is not None and not reason.withdrawn.muted:
        return _Need.WITHDRAWN
    if at - reason.last_true_at > FORGOTTEN_AFTER:
        return _Need.FORGOTTEN
    return _Need.SAMPLE if reason.kind is ReasonKind.SAMPLE else _Need.STANDS


def _merged(known: tuple[Reason, ...]) -> tuple[Reason, ...]:
    """The oldest alerts beyond `ALERTS_KEPT` in one entry for each trigger, which says so."""
    alerts = sorted((one for one in known if _may_fire(one)), key=lambda one: one.last_true_at)
    beyond = [one for one in alerts if not one.subject.startswith(_MERGED)][: -ALERTS_KEPT or None]
    for one in beyond:
        subject = f"{_MERGED}{one.trigger}"
        before = _find(known, subject)
        at = max(one.last_true_at, before.last_true_at) if before is not None else one.last_true_at
        over = Withdrawal(
            at=at,
            by="the agent",
            said=f"more than {ALERTS_KEPT} alerts of the service were reported firing at once, "
            "so which of the oldest still fire is not known,",
            muted=True,
        )
        merged = Reason(
            trigger=one.trigger,
            kind=ReasonKind.ALERT,
            subject=subject,
            source=one.source,
            said=f"one of the alerts beyond the newest {ALERTS_KEPT} of the service",
            last_true_at=at,
            withdrawn=over,
        )
        known = (*(each for each in known if each.subject not in (one.subject, subject)), merged)
    return known


def merged_triggers(known: tuple[Reason, ...]) -> frozenset[Trigger]:
    """Of which triggers alerts were merged, because too many stood at once."""
    return frozenset(one.trigger for one in known if one.subject.startswith(_MERGED))


def _may_fire(reason: Reason) -> bool:
    """An alert that was not reported as resolved; muted ones are among them."""
    return reason.kind is ReasonKind.ALERT and (reason.withdrawn is None or reason.withdrawn.muted)


def alert_name(reason: Reason) -> str:
    """The name of the alert that a reason of this kind rests on."""
    return reason.said.removeprefix(_ALERT_WORDS)


def _alert_subject(alert: Alert) -> str:
    return f"alert {alert.fingerprint.lower()}@{alert.starts_at.isoformat()}"


def _condition_subject(condition: Condition, kind: ReasonKind) -> str:
    return f"{kind} {condition}"


def _level_subject(trigger: Trigger, kind: ReasonKind) -> str:
    return f"{kind} {trigger}"


def level_words(trigger: Trigger, value: float) -> str:
    """An indicator with its figure, in words."""
    if trigger is Trigger.HIGH_ERROR_RATE:
        return f"error rate of {value:.1%}"
    return f"p95 latency of {value:.0f} ms"


# ---------------------------------------------------------------- what the agent sees itself


def examined(
    known: tuple[Reason, ...], triggers: tuple[Trigger, ...], seen: Observation, slo: SloThresholds
) -> tuple[Reason, ...]:
    """The reasons for acting on an incident with these triggers, given what is seen now."""
    own = (*_measured(seen, slo), *_seen_in_cluster(known, seen))
    subjects = {reason.subject for reason in own}
    candidates = [*own, *(reason for reason in known if reason.subject not in subjects)]
    return tuple(_against(reason, seen, slo) for reason in candidates if reason.trigger in triggers)


def _measured(seen: Observation, slo: SloThresholds) -> Iterable[Reason]:
    for trigger, value, objective in _own_levels(seen, slo):
        if value > objective:
            yield Reason(
                trigger=trigger,
                kind=ReasonKind.OWN_MEASUREMENT,
                subject=_level_subject(trigger, ReasonKind.OWN_MEASUREMENT),
                source=POLLED,
                said=f"the measured {level_words(trigger, value)}",
                last_true_at=seen.sli.at if seen.sli is not None else seen.at,
            )


def _own_levels(seen: Observation, slo: SloThresholds) -> Iterable[tuple[Trigger, float, float]]:
    """What the agent's own source measured on enough requests: trigger, value, objective."""
    if seen.sli is None or not seen.sli.measured:
        return
    sample = slo.judged(seen.sli)
    if sample.error_rate is not None:
        yield Trigger.HIGH_ERROR_RATE, sample.error_rate, slo.max_error_rate
    if sample.p95_latency_ms is not None:
        yield Trigger.HIGH_LATENCY, sample.p95_latency_ms, slo.max_p95_latency_ms


def _seen_in_cluster(known: tuple[Reason, ...], seen: Observation) -> Iterable[Reason]:
    workload = seen.workload
    if workload is None:
        return
    for condition in workload_conditions(workload):
        yield Reason(
            trigger=CONDITION_TRIGGERS[condition],
            kind=ReasonKind.OWN_LOOK,
            subject=_condition_subject(condition, ReasonKind.OWN_LOOK),
            source=WATCHED,
            said=f"{condition} of its pods",
            last_true_at=seen.at,
        )
    crashed = [pod for pod in workload.pods if restarting(pod)]
    if crashed:
        yield Reason(
            trigger=Trigger.CRASH_LOOP,
            kind=ReasonKind.OWN_LOOK,
            subject="own_look restarting",
            source=WATCHED,
            said=f"{len(crashed)} of {len(workload.pods)} pods that restart and are not ready",
            last_true_at=seen.at,
        )
    failed = _find(known, "deploy")
    if failed is not None and failed.withdrawn is None and _still_unfinished(workload, failed):
        yield replace(failed, last_true_at=max(failed.last_true_at, seen.at))


def _still_unfinished(workload: WorkloadView, failed: Reason) -> bool:
    """The rollout that was reported failed is still the one under way."""
    born = workload.revisions[0].created_at if workload.revisions else None
    same = born is None or born <= failed.last_true_at + CLOCKS_APART
    return same and not workload.rollout_complete and not workload.paused


def _against(reason: Reason, seen: Observation, slo: SloThresholds) -> Reason:
    """The reason, withdrawn if the agent's own observation contradicts it or cannot confirm it."""
    if reason.withdrawn is not None:
        return reason
    against = _metric_objection(reason, seen, slo)
    if against is None:
        against = _cluster_objection(reason, seen)
    if against is None:
        return reason
    return replace(reason, withdrawn=Withdrawal(at=seen.at, by="the agent", said=against))


def _metric_objection(reason: Reason, seen: Observation, slo: SloThresholds) -> str | None:
    if reason.trigger not in _METRIC_TRIGGERS:
        return None
    for trigger, value, objective in _own_levels(seen, slo):
        if trigger is reason.trigger and value <= objective:
            return f"the measured {level_words(trigger, value)} contradicts {reason.said}"
    if seen.unmeasured is not None:
        return f"the agent cannot measure ({seen.unmeasured}), so nothing confirms {reason.said}"
    if seen.telemetry is not None and seen.telemetry.outage:
        return f"the telemetry is out, so nothing confirms {reason.said}"
    return None


def _cluster_objection(reason: Reason, seen: Observation) -> str | None:
    workload = seen.workload
    if reason.trigger in _METRIC_TRIGGERS:
        return None
    if seen.unseen is not None:
        return f"the agent cannot look at the workload ({seen.unseen}), so nothing confirms {reason.said}"
    if workload is None:
        return None
    shown = {CONDITION_TRIGGERS[condition] for condition in workload_conditions(workload)}
    whole = workload.rollout_complete and 0 < workload.desired_replicas <= workload.available_replicas
    if reason.trigger in shown or not whole or any(restarting(pod) for pod in workload.pods):
        return None
    return (
        f"the cluster shows {workload.available_replicas} of {workload.desired_replicas} replicas "
        f"available and no such condition, which contradicts {reason.said}"
    )


# ---------------------------------------------------------------- what stands


@dataclass(frozen=True, slots=True, kw_only=True)
class Reasons:
    """The reasons to act on one incident, as checked at one time; re-evaluated later."""

    found: tuple[Reason, ...]
    max_age: timedelta
    """EVIDENCE_MAX_AGE_SECONDS."""
    clock: Callable[[], datetime]
    """The time now, asked inside the transaction that begins an action: a lock may have been waited for."""

    def standing(self) -> tuple[Reason, ...]:
        """The reasons that hold at this moment."""
        now = self.clock()
        return tuple(reason for reason in self.found if reason.stands(now, self.max_age))

    def refusal(self, reported: tuple[Reason, ...] = ()) -> str | None:
        """Why no action may begin now, given the stored reports; None while a reason holds."""
        current = replace(self, found=tuple(_as_reported(reason, reported) for reason in self.found))
        return None if current.standing() else current.why_none()

    def why_none(self) -> str:
        """The state of each reason, in words; never empty."""
        now = self.clock()
        said = [_fate(reason, now) for reason in self.found if not reason.stands(now, self.max_age)]
        return "; ".join(dict.fromkeys(said[:4])) or "nothing that opened the incident is on record any more"


def _as_reported(reason: Reason, reported: tuple[Reason, ...]) -> Reason:
    """The reason with what was reported since it was examined."""
    if reason.withdrawn is not None:
        return reason
    for one in reported:
        over = one.withdrawn
        if over is None or over.at < reason.last_true_at:
            continue
        measured = one.kind is ReasonKind.OWN_MEASUREMENT and one.trigger is reason.trigger
        if one.subject == reason.subject or measured:
            return replace(reason, withdrawn=over)
    return reason


def _fate(reason: Reason, now: datetime) -> str:
    if reason.withdrawn is not None:
        return f"{reason.withdrawn.said} at {clock_words(reason.withdrawn.at, now)}"
    return (
        f"{reason.said} was last known to be true at {clock_words(reason.last_true_at, now)}, "
        f"{ago_words(now - reason.last_true_at)} ago"
    )


def clock_words(at: datetime, now: datetime) -> str:
    """A time of today without its date."""
    form = "%H:%M:%S UTC" if abs(now - at) < timedelta(hours=12) else "%Y-%m-%d %H:%M:%S UTC"
    return at.strftime(form)


def ago_words(span: timedelta) -> str:
    """`2 m 10 s`, `3 h 5 m`."""
    seconds = max(0, round(span.total_seconds()))
    hours, minutes = seconds // 3600, seconds % 3600 // 60
    if hours:
        return f"{hours} h {minutes} m"
    return f"{minutes} m {seconds % 60} s" if minutes else f"{seconds} s"


# ---------------------------------------------------------------- all-clear


def firing_alerts(
    known: tuple[Reason, ...], triggers: tuple[Trigger, ...], now: datetime
) -> tuple[Reason, ...]:
    """The alerts of an incident that were reported firing within a day and not resolved since."""
    return tuple(
        one
        for one in known
        if _may_fire(one) and one.trigger in triggers and now - one.last_true_at <= FORGOTTEN_AFTER
    )


def all_withdrawn(known: tuple[Reason, ...], triggers: tuple[Trigger, ...]) -> bool:
    """Whether all reported triggers of an incident were withdrawn by their senders."""
    mine = [one for one in known if one.trigger in triggers]
    told = {one.trigger for one in mine}
    return told.issuperset(triggers) and all(
        one.withdrawn is not None and not one.withdrawn.muted for one in mine
    )
