"""What an incident waits for people to say, and what their answer makes of a decision: pure (promise 1)."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from app.agent.models import (
    Approval,
    ApprovalState,
    Decision,
    DecisionKind,
    IncidentRecord,
    IncidentState,
)


def asked_for(record: IncidentRecord) -> Approval | None:
    """The approval that the incident's next action waits for, or was given."""
    incident = record.incident
    if incident.state is not IncidentState.AWAITING_APPROVAL:
        return None
    mine = [a for a in record.approvals if a.action_index == incident.next_action]
    return mine[-1] if mine else None


def open_until(record: IncidentRecord, now: datetime) -> datetime | None:
    """Until when people may still answer what the incident waits for; None when there is something to do."""
    asked = asked_for(record)
    if asked is None or asked.state is not ApprovalState.PENDING or now >= asked.expires_at:
        return None
    return asked.expires_at


def as_answered(decision: Decision, answered: Approval) -> Decision:
    """What becomes of a decision that asks for an approval, given what people said (promise 1)."""
    said = f": {answered.comment}" if answered.comment else ""
    match answered.state:
        case ApprovalState.APPROVED:
            kind, why = DecisionKind.ALLOW, f"approved by {answered.answered_by}{said}"
        case ApprovalState.DENIED:
            kind, why = DecisionKind.DENY, f"denied by {answered.answered_by}{said}"
        case ApprovalState.PENDING | ApprovalState.EXPIRED:
            kind, why = (
                DecisionKind.DENY,
                f"nobody answered until {answered.expires_at:%Y-%m-%d %H:%M:%S} UTC",
            )
        case ApprovalState.USED | ApprovalState.VOID:
            kind, why = DecisionKind.DENY, f"approval {answered.id} is {answered.state}"
    return replace(decision, kind=kind, reasons=(*decision.reasons, why))


def refused_by_people(decision: Decision, answered: Approval) -> bool:
    """Policy would do without an approval by now, but somebody was asked and said no: that stands."""
    return decision.kind is DecisionKind.ALLOW and answered.state is ApprovalState.DENIED


def uses_up(decision: Decision, answered: Approval) -> bool:
    return decision.kind is DecisionKind.ALLOW and answered.state is ApprovalState.APPROVED
