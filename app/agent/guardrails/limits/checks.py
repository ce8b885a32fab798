"""The limit status of an action at one moment."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from app.agent.guardrails.freeze import frozen
from app.agent.guardrails.limits.circuits import cluster_circuit_open, service_circuit_open
from app.agent.guardrails.limits.counting import budgets_spent, spending
from app.agent.guardrails.limits.history import History, Proposed, in_utc, of_this_time
from app.agent.guardrails.limits.repetition import in_backoff, in_cooldown, on_same_evidence, oscillates
from app.agent.guardrails.limits.terms import Excess, LimitName, Limits, Spending

INCIDENT_BUDGET_SPENT = "the incident's budget of actions is spent"


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitStatus:
    """The limit status of an action at one moment."""

    history: History = field(default_factory=History)
    spending: tuple[Spending, ...] = ()
    exceeded: tuple[Excess, ...] = ()


def standing(
    proposed: Proposed, history: History, limits: Limits, known_services: int | None, at: datetime
) -> LimitStatus:
    """The complete limit status of an action at that moment."""
    return LimitStatus(
        history=history,
        spending=spending(proposed, history, limits, known_services, at),
        exceeded=exceeded(proposed, history, limits, known_services, at),
    )


def exceeded(
    proposed: Proposed, history: History, limits: Limits, known_services: int | None, at: datetime
) -> tuple[Excess, ...]:
    """The limits that the action would exceed if it began at `at`; empty if none."""
    if proposed.namespace is None:
        return ()
    return tuple(
        excess
        for excess in (
            _freeze(proposed, limits, at),
            *budgets_spent(proposed, history, limits, known_services, at),
            in_cooldown(proposed, history, limits, at),
            in_backoff(proposed, history, limits, at),
            on_same_evidence(proposed, history, limits, at),
            oscillates(proposed, history, limits, at),
            service_circuit_open(proposed, history, limits, at),
            cluster_circuit_open(proposed, history, limits, at),
        )
        if excess is not None
    )


def _freeze(proposed: Proposed, limits: Limits, at: datetime) -> Excess | None:
    why = frozen(limits.freezes, proposed.key, at)
    return None if why is None else Excess(limit=LimitName.FREEZE, reason=why)


def set_aside(history: History, limits: Limits, at: datetime) -> str | None:
    """The note on actions that no limit counts because they are dated far in the future."""
    began = {touch.intent_id: touch.began_at for touch in history.window}
    began |= {past.intent_id: past.began_at for past in history.service}
    far = [moment for moment in began.values() if not of_this_time(moment, limits.look_back, at)]
    if not far:
        return None
    actions = "1 action" if len(far) == 1 else f"{len(far)} actions"
    return f"{actions} dated up to {in_utc(max(far))}, in the future, ignored: the clock went back"
