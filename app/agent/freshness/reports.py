"""How reports add, refresh and withdraw reasons.

Pure, called by intake inside its transaction.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta

from app.agent.evidence.conditions import CONDITION_TRIGGERS
from app.agent.freshness.firings import end_is_read, later_firing, with_earlier_ended, with_later_ended
from app.agent.freshness.memory import may_fire, one_less_unknown, recalled, stored
from app.agent.freshness.reasons import (
    ALERT_WORDS,
    Reason,
    ReasonKind,
    Withdrawal,
    alert_subject,
    condition_subject,
    find,
    level_subject,
    level_words,
)
from app.agent.models import (
    POLLED,
    WATCHED,
    Alert,
    ClusterCondition,
    Condition,
    Deploy,
    DeployStatus,
    MetricSample,
    Signal,
    SliSample,
    Trigger,
)
from app.agent.slo import SloThresholds

REPEAT_APART = timedelta(seconds=15)
"""Copies of one delivery (a retry, a second sender) arrive closer together than repeats of an alert."""


def remember_signal(known: tuple[Reason, ...], signal: Signal) -> tuple[Reason, ...]:
    """The reasons of a service after an alert, a condition or a deploy; samples go by `remember_level`."""
    match signal.payload:
        case Alert(suppressed=True) as alert:
            said = f"the alert {alert.name} was reported as suppressed"
            over = Withdrawal(at=reported_at(signal), by=signal.source, said=said, muted=True)
            return _suppress(known, signal, alert, over)
        case Alert(trigger=None):
            return known
        case Alert() as alert:
            return _remember_alert(known, signal, alert)
        case ClusterCondition() as report:
            return remember_condition(known, signal, report.condition, present=report.present)
        case Deploy(status=DeployStatus.FAILED | DeployStatus.SUCCEEDED) as deploy:
            return _remember_deploy(known, signal, deploy)
        case _:
            return known


def remember_condition(
    known: tuple[Reason, ...], signal: Signal, condition: Condition, *, present: bool
) -> tuple[Reason, ...]:
    """A condition appeared on the workload, or cleared; a report never clears the agent's own observation."""
    own = signal.source == WATCHED
    kind = ReasonKind.OWN_LOOK if own else ReasonKind.CONDITION
    at = min(signal.observed_at, signal.received_at)
    subject = condition_subject(condition, kind)
    said = f"{condition} of its pods" if own else f"{condition}, reported by {signal.source}"
    if not present:
        words = f"{condition} cleared" if own else f"{signal.source} reported the end of {condition}"
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
    if value is None or breach is None or not (breach or known):
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
            subject=level_subject(trigger, kind),
            source=signal.source,
            said=said,
            last_true_at=at,
        )
        return _claim(known, claim)
    words = f"{signal.source} measured" if own else f"{signal.source} reported"
    over = Withdrawal(at=at, by=signal.source, said=f"{words} the {figure}, within its objective")
    if own:  # the agent's own measurement contradicts every report too
        known = _withdraw(known, level_subject(trigger, ReasonKind.OWN_MEASUREMENT), over)
    return _withdraw(known, level_subject(trigger, ReasonKind.SAMPLE), over)


def from_signals(
    signals: Iterable[Signal], slo: SloThresholds, newest: SliSample | None = None
) -> tuple[Reason, ...]:
    """The reasons that follow from signals in order, if no reasons were stored for them.

    A sample within the objective joins no incident: the `newest` sample of the service withdraws the claims
    of earlier samples.
    """
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
    return known if newest is None else _withdrawn_by(newest, known, slo)


def _withdrawn_by(newest: SliSample, known: tuple[Reason, ...], slo: SloThresholds) -> tuple[Reason, ...]:
    """Without the posted samples that a newer one within the objective contradicts."""
    for trigger, value, objective in (
        (Trigger.HIGH_ERROR_RATE, newest.error_rate, slo.max_error_rate),
        (Trigger.HIGH_LATENCY, newest.p95_latency_ms, slo.max_p95_latency_ms),
    ):
        if value is None or value > objective * slo.clear_ratio:
            continue
        said = f"the newest sample reported the {level_words(trigger, value)}, within its objective"
        over = Withdrawal(at=newest.at, by="a sender of samples", said=said)
        known = _withdraw(known, level_subject(trigger, ReasonKind.SAMPLE), over)
    return known


def repeated(known: tuple[Reason, ...], signal: Signal) -> tuple[tuple[Reason, ...], bool]:
    """The meaning of an alert that was delivered before with the same status, and whether it fires again.

    A repeat refreshes the original. After a resolution the first firing repeat counts as a late copy; one
    that arrives `REPEAT_APART` later fires again.
    """
    alert = signal.payload
    if not isinstance(alert, Alert) or alert.trigger is None:
        return known, False
    if alert.suppressed:
        return remember_signal(known, signal), False
    _, before = recalled(known, alert)
    after = _remember_alert(known, signal, alert, delivered_before=True)
    _, now = recalled(after, alert)
    again = before is not None and before.withdrawn is not None and now is not None and now.withdrawn is None
    return after, again


def remembers(known: tuple[Reason, ...], alert: Alert) -> bool:
    """Whether anything was reported of this alert with this start."""
    return recalled(known, alert)[1] is not None


def _remember_alert(
    known: tuple[Reason, ...], signal: Signal, alert: Alert, *, delivered_before: bool = False
) -> tuple[Reason, ...]:
    assert alert.trigger is not None  # noqa: S101 - both callers have checked
    if (alert.polled or alert.withheld) and not alert.firing:
        return _no_longer_listed(known, signal, alert)
    subject, at = alert_subject(alert), reported_at(signal)
    said = ALERT_WORDS + alert.name
    known = with_earlier_ended(known, signal, alert)
    if not alert.firing:
        known = with_later_ended(known, signal, alert)
    stored_before = known
    known, before = recalled(known, alert)
    if before is None and (delivered_before or not alert.firing):
        known = one_less_unknown(known, alert.trigger, alert.cluster)
    claim = Reason(
        trigger=alert.trigger,
        kind=ReasonKind.ALERT,
        cluster=alert.cluster,
        labels=alert.labels,
        subject=subject,
        source=signal.source,
        said=said,
        last_true_at=at,
        opened=before is not None and before.opened,
        starts_at=alert.starts_at if alert.cycle is not None else None,
        polled=alert.polled and (before is None or before.polled),
    )
    later = later_firing(known, signal, alert) if alert.firing else None
    if later is not None and (before is None or may_fire(later)):
        if before is not None and not may_fire(before):
            return stored_before
        followed = Withdrawal(
            at=max(at, signal.received_at), by=signal.source, said=f"{said} ended and fired again"
        )
        return stored(known, replace(claim, withdrawn=followed))
    if not alert.firing:
        ended = Withdrawal(
            at=max(at, signal.received_at), by=signal.source, said=f"{said} was reported as resolved"
        )
        if before is None:  # so that a copy of its firing that comes late is known to be late
            return stored(known, replace(claim, withdrawn=ended))
        return stored(known, replace(before, withdrawn=ended, repeated_at=None))
    if before is None or before.withdrawn is None or before.withdrawn.muted:
        newest = claim if before is None else replace(claim, last_true_at=max(at, before.last_true_at))
        return stored(known, newest)
    if signal.received_at < before.withdrawn.at:
        return stored_before
    if before.repeated_at is None or signal.received_at < before.repeated_at:
        return stored(known, replace(before, repeated_at=signal.received_at))
    if signal.received_at - before.repeated_at < REPEAT_APART:
        return stored_before
    return stored(known, claim)


def _no_longer_listed(known: tuple[Reason, ...], signal: Signal, alert: Alert) -> tuple[Reason, ...]:
    """With the end of an alert that polling found, or that the agent silenced: its source lists it no more.

    The end of any other is delivered: a poll does not end it.
    """
    before = find(known, alert_subject(alert))
    if before is None or not end_is_read(known, alert):
        return known
    at = max(signal.received_at, before.last_true_at)
    said = f"the alert {alert.name} was no longer listed by {signal.source}"
    return stored(known, replace(before, withdrawn=Withdrawal(at=at, by=signal.source, said=said)))


def _suppress(
    known: tuple[Reason, ...], signal: Signal, alert: Alert, over: Withdrawal
) -> tuple[Reason, ...]:
    """With an alert that fired and is now muted; a merged alert is stored in full again.

    A later muted firing ends the earlier ones, and replaces them: nothing has recovered.
    """
    others, before = recalled(known, alert)
    if before is not None:
        if before.withdrawn is not None or over.at < before.last_true_at:
            return known
        return stored(others, replace(before, withdrawn=over))
    if alert.trigger is None:
        return known
    after = with_earlier_ended(known, signal, alert)
    if after == known:
        return known
    muted = Reason(
        trigger=alert.trigger,
        kind=ReasonKind.ALERT,
        cluster=alert.cluster,
        labels=alert.labels,
        subject=alert_subject(alert),
        source=signal.source,
        said=ALERT_WORDS + alert.name,
        last_true_at=over.at,
        withdrawn=over,
        starts_at=alert.starts_at if alert.cycle is not None else None,
    )
    return stored(after, muted)


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
    """Add a claim, unless a newer withdrawal or a newer claim exists."""
    before = find(known, claim.subject)
    if before is None:
        return stored(known, claim)
    if before.withdrawn is not None and before.withdrawn.at >= claim.last_true_at:
        return known
    if before.withdrawn is None and before.last_true_at >= claim.last_true_at:
        return known
    return stored(known, claim)


def _withdraw(known: tuple[Reason, ...], subject: str, over: Withdrawal) -> tuple[Reason, ...]:
    before = find(known, subject)
    if before is None or before.withdrawn is not None or over.at < before.last_true_at:
        return known
    return stored(known, replace(before, withdrawn=over))
