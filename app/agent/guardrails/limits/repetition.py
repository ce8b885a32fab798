"""Cooldown, backoff, and actions that would repeat or reverse an earlier action of the agent."""

from __future__ import annotations

from datetime import datetime, timedelta

from app.agent.guardrails.limits.history import History, PastAction, Proposed, in_utc, of_this_time, order
from app.agent.guardrails.limits.terms import Excess, LimitName, Limits
from app.agent.models import ActionName, OutcomeKind
from app.bounds.backoff import Backoff


def in_cooldown(proposed: Proposed, history: History, limits: Limits, at: datetime) -> Excess | None:
    """Whether an action of another incident began on the service within the cooldown."""
    recent = [
        p
        for p in _of_others(proposed, history)
        if p.began_at > at - limits.cooldown and of_this_time(p.began_at, limits.cooldown, at)
    ]
    if not recent:
        return None
    last = max(recent, key=order)
    return Excess(
        limit=LimitName.COOLDOWN,
        reason=f"{proposed.key} is in cooldown until {in_utc(last.began_at + limits.cooldown)}: "
        f"{last.action.words} began {in_utc(last.began_at)}",
    )


def in_backoff(proposed: Proposed, history: History, limits: Limits, at: datetime) -> Excess | None:
    """Whether the service waits after consecutive actions for the same cause that did not help."""
    if limits.backoff_base <= timedelta(0) or proposed.cause is None:
        return None
    failures: list[PastAction] = []
    for past in sorted(_of_others(proposed, history), key=order, reverse=True):
        if past.cause is not proposed.cause or past.helped is None:
            continue
        if not of_this_time(past.began_at, limits.backoff_max, at):
            continue
        if past.helped:
            break
        failures.append(past)
    if not failures:
        return None
    backoff = Backoff(first=limits.backoff_base, longest=limits.backoff_max)
    until = failures[0].began_at + backoff.after(len(failures))
    if at >= until:
        return None
    last = "the last action" if len(failures) == 1 else f"the last {len(failures)} actions"
    return Excess(
        limit=LimitName.BACKOFF,
        reason=f"{last} on {proposed.key} for {proposed.cause.replace('_', ' ')} did not help: "
        f"backoff until {in_utc(until)}",
    )


def on_same_evidence(proposed: Proposed, history: History, limits: Limits, at: datetime) -> Excess | None:
    """Whether the same action began on the same evidence before and did not help."""
    if not proposed.evidence:
        return None
    form = (proposed.evidence, *_form(proposed))
    for past in _remembered(history, limits, at):
        if past.undoes is not None or past.helped is not False or past.outcome is OutcomeKind.FAILED:
            continue
        if (past.evidence, *_form(past)) == form:
            return Excess(
                limit=LimitName.SAME_EVIDENCE,
                reason=f"{past.action.words} was executed {in_utc(past.began_at)} on the same evidence "
                f"({past.incident_id}) and did not help",
            )
    return None


def _form(one: Proposed | PastAction) -> tuple[object, ...]:
    """The identity of an action; by content hash where known, because revision numbers change."""
    return one.action, one.target, one.reaches if one.reaches is not None else one.parameters


def oscillates(proposed: Proposed, history: History, limits: Limits, at: datetime) -> Excess | None:
    """Whether it would restore a state that the agent itself replaced, from a state that the agent set.

    An undo that a person asked for is meant to.
    """
    if proposed.action is ActionName.RESTORE or proposed.reaches is None or proposed.leaves is None:
        return None
    on_target = [
        p
        for p in sorted(_remembered(history, limits, at), key=order)
        if p.target == proposed.target
        and p.leaves is not None
        and p.outcome is not OutcomeKind.FAILED
        and (p.incident_id, p.plan_hash, p.undoes) != (proposed.incident_id, proposed.plan_hash, None)
    ]
    for number, past in enumerate(on_target):
        if past.leaves != proposed.reaches:
            continue
        if any(later.reaches == proposed.leaves for later in on_target[number:]):
            return Excess(
                limit=LimitName.OSCILLATION,
                reason=f"{proposed.action.words} would restore the state of {proposed.target} that the agent "
                f"itself replaced by {past.action.words} {in_utc(past.began_at)}",
            )
    return None


def _of_others(proposed: Proposed, history: History) -> list[PastAction]:
    """Actions on the service by other incidents: an incident's own steps are each verified."""
    return [
        p
        for p in history.service
        if p.key == proposed.key and p.undoes is None and p.incident_id != proposed.incident_id
    ]


def _remembered(history: History, limits: Limits, at: datetime) -> list[PastAction]:
    return [
        p
        for p in history.service
        if p.began_at > at - limits.memory and of_this_time(p.began_at, limits.memory, at)
    ]
