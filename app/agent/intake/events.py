"""The effect of a deploy, an alert or a condition of the cluster on its service. Pure."""

from __future__ import annotations

from msgspec import structs

from app.agent.evidence.conditions import CONDITION_TRIGGERS
from app.agent.evidence.releases import change_of
from app.agent.freshness.firings import end_is_read, is_late
from app.agent.intake.meaning import SignalMeaning
from app.agent.models import (
    ALERTS_SOURCE,
    Alert,
    ClusterCondition,
    Condition,
    Deploy,
    DeployStatus,
    Signal,
    Trigger,
)
from app.agent.ports.store.signals import ServiceLevels

RESOLVED_KEPT = 16


def judge_deploy(signal: Signal, deploy: Deploy, levels: ServiceLevels) -> SignalMeaning:
    succeeded_at = levels.deploy_succeeded_at
    over = succeeded_at is not None and signal.observed_at < succeeded_at
    failed = deploy.status is DeployStatus.FAILED and not over
    reason = f"deploy of {deploy.version} {deploy.status}: kept for diagnosis"
    if over and deploy.status is DeployStatus.FAILED:
        reason = f"deploy of {deploy.version} failed, and a later one succeeded: kept for diagnosis"
    news = deploy.status is DeployStatus.SUCCEEDED and not over
    return SignalMeaning(
        triggers=(Trigger.DEPLOY_FAILED,) if failed else (),
        healthy_reason=reason,
        may_be_quieted=False,
        change=change_of(signal.key, deploy, signal.observed_at),
        levels=structs.replace(levels, deploy_succeeded_at=min(signal.observed_at, signal.received_at))
        if news
        else None,
    )


def heard(signal: Signal, levels: ServiceLevels) -> ServiceLevels | None:
    """The levels after a delivery of the firing watchdog alert; None for any other signal."""
    alert = signal.payload
    if signal.key != ALERTS_SOURCE or not isinstance(alert, Alert):
        return None
    if alert.trigger is not None or not alert.firing or alert.suppressed:
        return None
    return structs.replace(levels, watchdog_at=signal.received_at)


def judge_watchdog(signal: Signal, alert: Alert, levels: ServiceLevels) -> SignalMeaning:
    after = heard(signal, levels)
    what = "alerts are delivered" if after is not None else "not firing"
    return SignalMeaning(healthy_reason=f"watchdog {alert.name}: {what}", levels=after, joins=False)


def judge_alert(signal: Signal, alert: Alert, levels: ServiceLevels) -> SignalMeaning:
    if alert.telemetry:
        return SignalMeaning(
            healthy_reason=f"alert {alert.name} reports that a rule could not be evaluated: "
            "a telemetry outage, not a symptom of the service"
        )
    if alert.suppressed:
        return SignalMeaning(healthy_reason=f"alert {alert.name} is suppressed: no reason for an action")
    identity = alert.identity
    read = (alert.polled or alert.withheld) and not alert.firing
    if read and not end_is_read(levels.reasons, alert):
        said = f"alert {alert.name} is no longer listed: it was delivered, or has ended"
        return SignalMeaning(healthy_reason=said, joins=False)
    if not alert.firing:
        others = tuple(one for one in levels.resolved_alerts if one != identity)
        return SignalMeaning(
            healthy_reason=f"alert {alert.name} resolved, and no incident is open",
            levels=structs.replace(levels, resolved_alerts=(*others, identity)[-RESOLVED_KEPT:]),
        )
    if identity in levels.resolved_alerts:
        return SignalMeaning(
            healthy_reason=f"alert {alert.name} was reported as resolved before", joins=False
        )
    if alert.trigger is None:
        return SignalMeaning(healthy_reason=f"alert {alert.name} has no trigger in ALERT_TRIGGERS")
    if is_late(levels.reasons, signal, alert):
        return SignalMeaning(
            healthy_reason=f"alert {alert.name} has ended and fired again since", joins=False
        )
    return SignalMeaning(triggers=(alert.trigger,))


def judge_condition(report: ClusterCondition, levels: ServiceLevels) -> SignalMeaning:
    conditions = with_condition(levels.conditions, report.condition, report.present)
    after = structs.replace(levels, conditions=conditions)
    if not report.present:
        return SignalMeaning(
            healthy_reason=f"{report.condition} cleared, and no incident is open", levels=after
        )
    return SignalMeaning(triggers=(CONDITION_TRIGGERS[report.condition],), levels=after)


def with_condition(
    conditions: tuple[Condition, ...], condition: Condition, present: bool | None
) -> tuple[Condition, ...]:
    if present is None:
        return conditions
    others = tuple(c for c in conditions if c is not condition)
    return (*others, condition) if present else others
