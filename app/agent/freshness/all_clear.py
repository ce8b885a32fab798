"""The all-clear: which alerts of an incident may still fire, and whether all of it was withdrawn. Pure."""

from __future__ import annotations

from datetime import datetime

from app.agent.freshness.memory import FORGOTTEN_AFTER, may_fire
from app.agent.freshness.reasons import Reason
from app.agent.models import Trigger


def firing_alerts(
    known: tuple[Reason, ...], triggers: tuple[Trigger, ...], now: datetime
) -> tuple[Reason, ...]:
    """The alerts of an incident that were reported firing within a day and not resolved since."""
    return tuple(
        one
        for one in known
        if may_fire(one) and one.trigger in triggers and now - one.last_true_at <= FORGOTTEN_AFTER
    )


def all_withdrawn(known: tuple[Reason, ...], triggers: tuple[Trigger, ...]) -> bool:
    """Whether all reported triggers of an incident were withdrawn by their senders."""
    mine = [one for one in known if one.trigger in triggers]
    told = {one.trigger for one in mine}
    return told.issuperset(triggers) and all(
        one.withdrawn is not None and not one.withdrawn.muted for one in mine
    )
