"""Circuit breakers: after consecutive actions that did not help, block further actions.

Pure; `app.agent.guardrails.limits` evaluates it for one service and for the cluster,
when policy decides and in the transaction that begins an action, so that exactly one
worker gets the half-open attempt (promises 4 and 11). The state is not stored: it is
derived from recorded actions and survives restarts. It does not apply to undos.

Closed until `Breaker.failures` actions in a row did not help; then open for `Breaker.open_for` from the
moment the last of them began; then half-open: one action, whose incident must end before the next. An
action that helped closes it; otherwise it opens again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from app.agent.freshness.clock_jumps import FAR_AHEAD
from app.agent.ids import IncidentId

_AT_LEAST = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """The thresholds of a circuit breaker."""

    failures: int
    """Consecutive actions that did not help: at least one."""
    open_for: timedelta

    @property
    def remembers(self) -> timedelta:
        """How long failures count; long enough that consecutive failed half-open attempts keep it open."""
        return max((self.failures + 1) * self.open_for, _AT_LEAST)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """One action that began; not an undo."""

    intent_id: str
    incident_id: IncidentId
    began_at: datetime
    helped: bool | None
    """None while that is open."""


def since_closed(tried: Iterable[Tried], closed_at: datetime | None) -> list[Tried]:
    """The actions that count after a manual close: actions that began later."""
    return [one for one in tried if closed_at is None or one.began_at > closed_at]


def open_reason(tried: Iterable[Tried], breaker: Breaker, asking: IncidentId, at: datetime) -> str | None:
    """Why no action of the incident `asking` may begin at `at`; None if the breaker allows it.

    Further steps of the incident with the half-open attempt are allowed: its own budget
    limits them, and each is verified before the next.
    """
    ahead = max(breaker.remembers, FAR_AHEAD)
    counted = [one for one in tried if one.began_at - at <= ahead]
    if sum(one.helped is False for one in counted) < breaker.failures:
        return None
    newest_first = sorted(counted, key=lambda one: (one.began_at, one.intent_id), reverse=True)
    failed: list[Tried] = []
    for one in newest_first:
        if one.helped:
            break
        if one.helped is False:
            failed.append(one)
    if len(failed) < breaker.failures:
        return None
    until = failed[0].began_at + breaker.open_for
    if at < until:
        return f"open until {_clock(until)}: {_last(len(failed))} did not help"
    for one in newest_first:
        if one.helped is None and one.began_at >= until and one.incident_id != asking:
            return f"half-open: {one.incident_id} has an action in progress since {_clock(one.began_at)}"
    return None


def _clock(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"


def _last(number: int) -> str:
    return "the last action" if number == 1 else f"the last {number} actions"
