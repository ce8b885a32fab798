"""The order of the stages: which one an open incident comes to next. Pure."""

from __future__ import annotations

from enum import StrEnum

from app.agent.gitops.steps import followed_up
from app.agent.intents import awaits_completion, unverified
from app.agent.models import IncidentRecord, IncidentState, IntentState


class NextStage(StrEnum):
    DIAGNOSE = "diagnose"
    DECIDE = "decide"
    EXECUTE = "execute"
    RECONCILE = "reconcile"
    SETTLE = "settle"
    BEGIN_VERIFICATION = "begin verification"
    VERIFY = "verify"
    DECIDE_UNDO = "decide undo"
    """A person asked for it."""
    SETTLE_UNDO = "settle undo"
    CONCLUDE_UNDO = "conclude undo"
    FOLLOW_UP = "follow up"
    """After a rollback through a GitOps controller that helped."""
    CONCLUDE = "conclude"


def next_stage(record: IncidentRecord) -> NextStage:
    """The next stage of an open incident, only from its durable record."""
    incident = record.incident
    if any(i.state is IntentState.EXECUTING for i in record.intents):
        return NextStage.RECONCILE
    if incident.undoing is not None:
        return _stage_of_undo(record)
    if followed_up(record) is not None:
        return NextStage.FOLLOW_UP
    if incident.state is IncidentState.VERIFYING:
        return NextStage.VERIFY
    if incident.state is IncidentState.AWAITING_APPROVAL:
        return NextStage.DECIDE
    if incident.state is IncidentState.EXECUTING and record.intents:
        decided = record.intents[-1].state is IntentState.DECIDED
        return NextStage.EXECUTE if decided else NextStage.SETTLE
    if unverified(record) is not None and not awaits_completion(record):
        # Regardless of how the plan continued or ended, completed actions are verified first.
        return NextStage.BEGIN_VERIFICATION
    if incident.diagnosis is None or incident.plan is None:
        return NextStage.DIAGNOSE
    if incident.next_action < len(incident.plan.actions):
        return NextStage.DECIDE
    return NextStage.CONCLUDE


def _stage_of_undo(record: IncidentRecord) -> NextStage:
    """The next stage of an incident while a request of a person to undo is pending."""
    incident, plan = record.incident, record.incident.plan
    if plan is None or incident.next_action >= len(plan.actions):
        return NextStage.CONCLUDE_UNDO
    if incident.state is not IncidentState.EXECUTING:
        return NextStage.DECIDE_UNDO
    decided = record.intents[-1].state is IntentState.DECIDED
    return NextStage.EXECUTE if decided else NextStage.SETTLE_UNDO
