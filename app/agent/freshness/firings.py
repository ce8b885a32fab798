"""The firings of one alert in their order: a sender reports one at a time, the newest. Pure.

An alert that ends and fires again keeps its fingerprint and has a later start. Its sender
may never deliver the end of the earlier firing, so a report of the later one ends it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

from app.agent.freshness.memory import ended_in_short, may_fire, stored
from app.agent.freshness.reasons import (
    Reason,
    ReasonKind,
    Withdrawal,
    alert_identity,
    alert_name,
    alert_subject,
)
from app.agent.models import Alert, Signal

LATE_BY = timedelta(minutes=15)
"""The longest time for which a delivery is repeated unchanged; after it the sender makes a new delivery."""


def with_earlier_ended(known: tuple[Reason, ...], signal: Signal, alert: Alert) -> tuple[Reason, ...]:
    """With every earlier firing of this alert ended, including merged ones."""
    over = Withdrawal(
        at=signal.received_at, by=signal.source, said=f"the alert {alert.name} ended and fired again"
    )
    after = _ended(known, signal, alert, over, lambda began: began < alert.starts_at)
    return ended_in_short(after, alert, signal.source, over.at)


def with_later_ended(known: tuple[Reason, ...], signal: Signal, alert: Alert) -> tuple[Reason, ...]:
    """With every firing ended that began before this resolution, whose start is earlier than theirs.

    Two senders may give one firing two starts; the end is reported with the earlier. An end
    that is the time of its report may have been missing from the delivery, and ends no other.
    """
    if alert.cycle is not None or signal.observed_at >= signal.received_at:
        return known
    over = Withdrawal(
        at=signal.received_at, by=signal.source, said=f"the alert {alert.name} was reported as resolved"
    )
    return _ended(known, signal, alert, over, lambda began: alert.starts_at < began <= signal.observed_at)


def later_firing(known: tuple[Reason, ...], signal: Signal, alert: Alert) -> Reason | None:
    """The last firing of this alert that began later, one that may still fire first; None without one.

    One that ended longer ago than deliveries are late proves nothing: a clock may have gone back.
    """
    found = [
        one
        for one in known
        if _same_alert(one, signal, alert)
        and (began := began_at(one)) is not None
        and began > alert.starts_at
        and alert_identity(one) != alert.identity
        and (one.withdrawn is None or may_fire(one) or signal.received_at - one.withdrawn.at <= LATE_BY)
    ]
    return max(found, key=lambda one: (may_fire(one), one.last_true_at), default=None)


def is_late(known: tuple[Reason, ...], signal: Signal, alert: Alert) -> bool:
    """Whether the report is of a firing that a later one has followed, and not on record as firing."""
    if not alert.firing or later_firing(known, signal, alert) is None:
        return False
    return not any(may_fire(one) and alert_identity(one) == alert.identity for one in known)


def polled_alert(reason: Reason) -> Alert | None:
    """The alert behind a reason that polling found and that still fires; None for every other reason."""
    return _as_alert(reason) if reason.polled else None


def withheld_alert(reason: Reason) -> Alert | None:
    """The alert behind a reason that was delivered, may fire, and is not merged; None for any other reason.

    While the agent silences it, its source delivers neither a repeat nor its end.
    """
    found = None if reason.polled or reason.merged is not None else _as_alert(reason)
    return None if found is None else replace(found, polled=False, withheld=True)


def end_is_read(known: tuple[Reason, ...], end: Alert) -> bool:
    """Whether an end that was read from what the source lists is of an alert whose end is not delivered."""
    found = next((one for one in known if one.subject == alert_subject(end)), None)
    if found is None:
        return False
    return (withheld_alert(found) if end.withheld else polled_alert(found)) is not None


def _as_alert(reason: Reason) -> Alert | None:
    began = began_at(reason)
    if reason.kind is not ReasonKind.ALERT or not may_fire(reason) or began is None:
        return None
    return Alert(
        name=alert_name(reason),
        firing=True,
        fingerprint=alert_identity(reason).rpartition("@")[0],
        starts_at=began,
        trigger=reason.trigger,
        cluster=reason.cluster,
        labels=reason.labels,
        polled=True,
    )


def began_at(reason: Reason) -> datetime | None:
    """When the alert behind a reason of this kind began; None where an older version did not keep it."""
    if reason.starts_at is not None:
        return reason.starts_at
    try:
        began = datetime.fromisoformat(alert_identity(reason).rpartition("@")[2])
    except ValueError:
        return None
    return began if began.tzinfo is not None else None


def _ended(
    known: tuple[Reason, ...],
    signal: Signal,
    alert: Alert,
    over: Withdrawal,
    concerns: Callable[[datetime], bool],
) -> tuple[Reason, ...]:
    """With the other firings of the alert ended that may fire and whose start it concerns."""
    for one in known:
        began = began_at(one) if _same_alert(one, signal, alert) and may_fire(one) else None
        if began is None or not concerns(began) or alert_identity(one) == alert.identity:
            continue
        known = stored(known, replace(one, withdrawn=replace(over, at=max(over.at, one.last_true_at))))
    return known


def _same_alert(reason: Reason, signal: Signal, alert: Alert) -> bool:
    """Whether the reason is a firing of this alert; two sources may use one fingerprint for two alerts."""
    if reason.kind is not ReasonKind.ALERT or reason.merged is not None or reason.source != signal.source:
        return False
    return alert_identity(reason).rpartition("@")[0] == alert.fingerprint.lower()
