"""What follows from policy's decision, as a pure function of what was gathered (promises 1 and 2)."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from app.agent.execution.decision import ApprovalMismatch, ApprovalNeeded, DecidedIntent, settle
from app.agent.execution.decision import DecisionResult as Result
from app.agent.guardrails.question import Question
from app.agent.ids import ApprovalId, IntentId
from app.agent.models import (
    Approval,
    ApprovalState,
    Decision,
    DecisionKind,
    IncidentRecord,
    IncidentState,
    IntentState,
    OutcomeKind,
)
from tests.test_policy import AT, QUESTION


def decided(kind: DecisionKind, question: Question = QUESTION, *approvals: Approval) -> Result:
    decision = Decision(kind=kind, reasons=("a reason",), plan_hash="plan-hash", target_token="u/3", at=AT)
    record = IncidentRecord(
        incident=question.incident,
        intents=(),
        timeline=(),
        approvals=approvals,
    )
    return settle(
        record, question, decision, stands_on=(), intent_id=IntentId("int_1"), now=AT + timedelta(seconds=1)
    )


def awaiting(question: Question = QUESTION) -> Question:
    return replace(question, incident=replace(question.incident, state=IncidentState.AWAITING_APPROVAL))


def approval(state: ApprovalState, **changes: str) -> Approval:
    asked = Approval(
        id=ApprovalId("apr_1"),
        incident_id=QUESTION.incident.id,
        action_index=0,
        action=QUESTION.action.name,
        plan_hash="plan-hash",
        target_token="u/3",
        reasons=(),
        requested_at=AT,
        expires_at=AT + timedelta(hours=1),
        state=state,
        answered_by="carol",
        answered_at=AT,
    )
    return replace(asked, **changes)  # type: ignore[arg-type] # only text fields are changed


def test_an_allowed_action_becomes_an_intent_that_is_not_begun() -> None:
    """The intent is stored before its effect; the incident is executing."""
    found = decided(DecisionKind.ALLOW)
    assert isinstance(found, DecidedIntent)
    assert (found.intent.state, found.intent.outcome) == (IntentState.DECIDED, None)
    assert (found.incident.state, found.incident.next_action) == (IncidentState.EXECUTING, 0)
    assert found.intent.decision.plan_hash == "plan-hash"


def test_a_denied_action_is_finished_and_the_plan_continues() -> None:
    """Its outcome is refused, with the reason of policy."""
    found = decided(DecisionKind.DENY)
    assert isinstance(found, DecidedIntent)
    assert found.intent.state is IntentState.FINISHED
    assert found.intent.outcome is not None
    assert found.intent.outcome.kind is OutcomeKind.REFUSED
    assert found.notes[-1].message == "Not executed: a reason."
    assert (found.incident.state, found.incident.next_action) == (IncidentState.OPEN, 1)


@pytest.mark.parametrize("kind", list(DecisionKind))
def test_a_dry_run_never_leaves_an_intent_to_execute(kind: DecisionKind) -> None:
    """Promise 5: whatever policy answers, the intent is finished as rehearsed."""
    dry = replace(QUESTION, incident=replace(QUESTION.incident, dry_run=True))
    found = decided(kind, dry)
    assert isinstance(found, DecidedIntent)
    assert found.intent.state is IntentState.FINISHED
    assert found.intent.outcome is not None
    assert found.intent.outcome.kind is OutcomeKind.REHEARSED


def test_a_required_approval_is_requested_first() -> None:
    """Nothing is stored as decided before it is answered."""
    assert isinstance(decided(DecisionKind.NEEDS_APPROVAL), ApprovalNeeded)


def test_an_approved_action_becomes_an_intent_with_its_approval() -> None:
    """The approval is used up by this intent."""
    found = decided(DecisionKind.NEEDS_APPROVAL, awaiting(), approval(ApprovalState.APPROVED))
    assert isinstance(found, DecidedIntent)
    assert found.intent.decision.kind is DecisionKind.ALLOW
    assert found.intent.approval == "apr_1"


@pytest.mark.parametrize("changes", [{"plan_hash": "another"}, {"target_token": "u/4"}])
def test_an_approval_counts_only_for_the_plan_and_state_it_was_given_for(changes: dict[str, str]) -> None:
    """Promise 1."""
    given = approval(ApprovalState.APPROVED, **changes)
    found = decided(DecisionKind.NEEDS_APPROVAL, awaiting(), given)
    assert isinstance(found, ApprovalMismatch)
    assert "the approval is for another state of" in found.reason
