"""Whether a recorded decision still holds right before the write. Pure (promise 1)."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from app.agent.actions.target_parts import same_ground
from app.agent.guardrails.freeze import frozen
from app.agent.guardrails.question import Guardrails
from app.agent.models import IncidentRecord, Intent, Snapshot
from app.agent.policy import forbidden_now, must_ask
from app.agent.workload import TargetState
from app.durations import span

MAX_DECISION_AGE = timedelta(minutes=1)
"""A decision older than this that was not executed is made again."""


def target_changed(intent: Intent, target: TargetState, snapshot: Snapshot) -> str | None:
    """Why the decision no longer holds for the target, or None."""
    decided = intent.decision.target_token
    if same_ground(intent.action, decided, target.token) and same_ground(
        intent.action, target.token, snapshot.token
    ):
        return None
    return (
        f"{target.ref} was changed by {target.changed_by or 'someone else'} after the decision; "
        "a new decision is required"
    )


def lapsed(
    record: IncidentRecord,
    intent: Intent,
    limits: Guardrails,
    now: datetime,
    *,
    can_write: bool,
    under_way: bool = False,
) -> str | None:
    """Why plan, age or configuration void the decision, or None. The agent's own undo is exempt.

    The age does not matter for an action that is `under_way`: its first step was in time.
    """
    if not can_write:
        return "the agent has no write access now"
    if intent.own_undo:
        return None
    plan, age = record.incident.plan, now - intent.decision.at
    if plan is None or plan.hash != intent.decision.plan_hash:
        return "the decision is for another plan"
    if age > MAX_DECISION_AGE and not under_way:
        return f"the decision is {span(age)} old"
    key = record.incident.key
    lifted = forbidden_now(intent.action, key, limits)
    asks = must_ask(intent.action, key, limits)
    if asks is not None and intent.approval is None:
        lifted.append(asks)
    elif (asks is not None or intent.decision.terms is not None) and _asks_others(record, intent, limits):
        lifted.append("the settings now require approval by other people")
    if intent.action.target is not None:
        why = frozen(limits.shared.freezes, key, now)
        lifted += [] if why is None else [why]
    return f"it is no longer allowed: {'; '.join(lifted)}" if lifted else None


def _asks_others(record: IncidentRecord, intent: Intent, limits: Guardrails) -> bool:
    """Whether the approval that the intent used up does not meet the configured terms."""
    terms = limits.approval_terms
    if intent.decision.policy_roles:
        terms = replace(terms, roles=())
    used = (one for one in record.approvals if one.id == intent.approval)
    return any(not terms.met_by(one.terms, [each.by for each in one.answers if each.approve]) for one in used)
