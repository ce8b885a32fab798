"""Reasons for an action: the last confirmation of each, and its withdrawal (promise 13). Pure.

Intake stores for each service the reports and their withdrawals (`reports`, within the bounds of `memory`);
before every decision the loop adds the agent's own observation (`own_look`); the transaction that begins an
action checks again whether a reason holds, including all reports up to then (`Reasons.refusal`). The
agent's own observation takes precedence over every report, and a failed measurement proves nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TypeAlias

from app.agent.models import Alert, Condition, Trigger
from app.durations import span

ALERT_WORDS = "the alert "


class ReasonKind(StrEnum):
    """The kind of source."""

    SAMPLE = "sample"
    ALERT = "alert"
    CONDITION = "condition"
    DEPLOY = "deploy"
    OWN_MEASUREMENT = "own_measurement"
    OWN_LOOK = "own_look"
    """The agent's own observation of the cluster."""


_OWN = (ReasonKind.OWN_MEASUREMENT, ReasonKind.OWN_LOOK)
"""The agent observes again before every decision: its observation is newer than a recorded withdrawal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawal:
    """A reason is no longer true, or the agent's own observation contradicts it."""

    at: datetime
    by: str
    """The source that said so: a sender, or the agent itself."""
    said: str
    """A clause with a verb, for the timeline: `the alert HighErrorRate was resolved`."""
    muted: bool = False
    """People muted it, or it is unknown whether they did: it may still be true, and nothing recovered."""


Trace: TypeAlias = tuple[str, int, int, int]
"""An alert in short: the digests of its fingerprint and of the whole with its start (older versions kept
the second alone); then, in microseconds since 1970 and 0 for
never, when it was last reported firing, when it was resolved, and when it first fired again after that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MergedAlerts:
    """The alerts of one trigger and cluster that are merged because there are too many; see `memory`."""

    firing: tuple[Trace, ...] = ()
    """Not reported as resolved."""
    over: tuple[Trace, ...] = ()
    """Reported as resolved: a firing report of one may be a late copy."""
    beyond: int = 0
    """Alerts that may fire and are not remembered one by one: their state is not known."""
    beyond_at: datetime | None = None
    """When the last of them was reported."""
    began_at: datetime | None = None
    """When an alert that may fire was last merged."""
    labels: tuple[tuple[str, str], ...] | None = None
    """The common labels of all alerts that may fire; None if unknown."""
    suppressed: tuple[str, ...] = ()
    """The digests of alerts that may fire and were reported as suppressed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """One reason to act on a service."""

    trigger: Trigger
    kind: ReasonKind
    subject: str
    """The key of the claim: an alert with its start, a condition, an indicator."""
    source: str
    said: str
    """A noun phrase for the timeline: `the alert HighErrorRate`."""
    last_true_at: datetime
    withdrawn: Withdrawal | None = None
    cluster: str = ""
    """The cluster that an alert names; empty where it names none."""
    repeated_at: datetime | None = None
    """When the alert was first reported as firing once more after it had been resolved."""
    starts_at: datetime | None = None
    """When the alert began, where its sender links a start to its end by something else."""
    labels: tuple[tuple[str, str], ...] | None = None
    """All labels of the alert, which silences are matched with; None where they are not known."""
    polled: bool = False
    """The alert was read from what its source lists, and never delivered: its end may not be either."""
    merged: MergedAlerts | None = None
    """Set in the entry for merged alerts, which is not a reason for an action."""
    opened: bool = False
    """The newest incident of the service was opened by this alert, which is never merged."""

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
        """Not withdrawn, and confirmed within `max_age` of now, whichever of two clocks is ahead."""
        return self.withdrawn is None and abs(now - self.last_true_at) <= max_age


def of_cluster(known: tuple[Reason, ...], cluster: str) -> tuple[Reason, ...]:
    """The reasons without those about another cluster; a reason without a cluster applies to all."""
    return tuple(one for one in known if not one.cluster or not cluster or one.cluster == cluster)


def find(known: Iterable[Reason], subject: str) -> Reason | None:
    """The reason with this subject; None if there is none."""
    return next((one for one in known if one.subject == subject), None)


def alert_name(reason: Reason) -> str:
    """The name of the alert behind a reason of this kind."""
    return reason.said.removeprefix(ALERT_WORDS)


def alert_subject(alert: Alert) -> str:
    return f"alert {alert.identity}"


def alert_identity(reason: Reason) -> str:
    """The identity of the alert behind a reason of this kind."""
    return reason.subject.removeprefix("alert ")


def condition_subject(condition: Condition, kind: ReasonKind) -> str:
    return f"{kind} {condition}"


def level_subject(trigger: Trigger, kind: ReasonKind) -> str:
    return f"{kind} {trigger}"


def level_words(trigger: Trigger, value: float) -> str:
    """An indicator with its figure, in words."""
    if trigger is Trigger.HIGH_ERROR_RATE:
        return f"error rate of {value:.1%}"
    return f"p95 latency of {value:.0f} ms"


# ---------------------------------------------------------------- what stands


@dataclass(frozen=True, slots=True, kw_only=True)
class Reasons:
    """The reasons to act on one incident, as checked at one time; re-evaluated later."""

    found: tuple[Reason, ...]
    max_age: timedelta
    """EVIDENCE_MAX_AGE_SECONDS."""
    clock: Callable[[], datetime]
    """The time now, asked inside the transaction that begins an action: a lock may have been waited for."""
    unrecorded: frozenset[str] = frozenset()
    """The subjects without a record in the store at that time: the agent's own observations, and reasons
    read from signals that an older version accepted."""

    def standing(self) -> tuple[Reason, ...]:
        """The reasons that hold at this moment."""
        now = self.clock()
        return tuple(reason for reason in self.found if reason.stands(now, self.max_age))

    def refusal(self, reported: tuple[Reason, ...] | None = None) -> str | None:
        """Why no action may begin now, given the stored reports; None while a reason holds.

        Without stored reports only the age of the reasons is checked.
        """
        if reported is None:
            return None if self.standing() else self.why_none()
        now = self.clock()
        current = replace(
            self,
            found=tuple(
                _as_reported(reason, reported, now, recorded=reason.subject not in self.unrecorded)
                for reason in self.found
            ),
        )
        return None if current.standing() else current.why_none()

    def why_none(self) -> str:
        """The state of each reason, in words; never empty."""
        now = self.clock()
        said = [_fate(reason, now) for reason in self.found if not reason.stands(now, self.max_age)]
        return (
            "; ".join(dict.fromkeys(said[:4])) or "the reports that opened the incident are no longer stored"
        )


def _as_reported(reason: Reason, reported: tuple[Reason, ...], now: datetime, *, recorded: bool) -> Reason:
    """The reason with all reports since it was examined.

    A reason that has disappeared from the record was withdrawn or merged in the meantime and then dropped:
    it does not hold.
    """
    if reason.withdrawn is not None:
        return reason
    for one in reported:
        over = one.withdrawn
        if over is None:
            continue
        newer = over.at >= reason.last_true_at
        measured = one.kind is ReasonKind.OWN_MEASUREMENT and one.trigger is reason.trigger
        if (newer and measured) or (one.subject == reason.subject and (newer or reason.kind not in _OWN)):
            return replace(reason, withdrawn=over)
    merged = reason.kind is ReasonKind.ALERT and any(
        one.merged is not None and one.trigger is reason.trigger for one in reported
    )
    if (recorded or merged) and find(reported, reason.subject) is None:
        said = f"{reason.said} was no longer on record"
        return replace(reason, withdrawn=Withdrawal(at=now, by="the agent", said=said))
    return reason


def _fate(reason: Reason, now: datetime) -> str:
    if reason.withdrawn is not None:
        return f"{reason.withdrawn.said} at {clock_words(reason.withdrawn.at, now)}"
    return (
        f"{reason.said} was last known to be true at {clock_words(reason.last_true_at, now)}, "
        f"{span(now - reason.last_true_at)} ago"
    )


def clock_words(at: datetime, now: datetime) -> str:
    """A time of today without its date."""
    form = "%H:%M:%S UTC" if abs(now - at) < timedelta(hours=12) else "%Y-%m-%d %H:%M:%S UTC"
    return at.strftime(form)
