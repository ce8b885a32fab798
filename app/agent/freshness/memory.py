"""What is remembered of the reports on one service, within bounds. Pure, called by `reports`."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import IntEnum

from app.agent.freshness.reasons import Reason, ReasonKind, Withdrawal, find
from app.agent.models import Trigger

REASONS_KEPT = 32
"""How many reasons are remembered for one service; more only where more alerts stand at once."""

ALERTS_KEPT = 64
"""How many alerts that may still fire are remembered for one service. Beyond it the oldest are merged,
into one entry for each trigger, which is no reason for an action and keeps the service from recovering."""

FORGOTTEN_AFTER = timedelta(days=1)
"""An alert neither repeated nor resolved for so long keeps no incident from recovering: its end was lost."""

_MERGED = "alerts merged "


def stored(known: tuple[Reason, ...], reason: Reason) -> tuple[Reason, ...]:
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
    alerts = sorted((one for one in known if may_fire(one)), key=lambda one: one.last_true_at)
    beyond = [one for one in alerts if not one.subject.startswith(_MERGED)][: -ALERTS_KEPT or None]
    for one in beyond:
        subject = f"{_MERGED}{one.trigger}"
        before = find(known, subject)
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


def may_fire(reason: Reason) -> bool:
    """An alert that was not reported as resolved; muted ones are among them."""
    return reason.kind is ReasonKind.ALERT and (reason.withdrawn is None or reason.withdrawn.muted)
