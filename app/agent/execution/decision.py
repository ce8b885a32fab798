"""The result of a policy decision: an approval request, a stored intent, or nothing.

Pure: from the gathered question and the decision to values that the executor stores
(promises 1 and 2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TypeAlias

from app.agent.actions import ACTIONS
from app.agent.actions.target_parts import same_ground
from app.agent.approvals.state import as_answered, asked_for, refused_by_people, uses_up
from app.agent.evidence.format import in_words
from app.agent.freshness.reasons import Reason
from app.agent.gitops.steps import application_of
from app.agent.guardrails.question import Question
from app.agent.guardrails.workload_kinds import mutes
from app.agent.ids import IntentId, Json, JsonObject
from app.agent.intents import index_behind
from app.agent.models import (
    Approval,
    Decision,
    DecisionKind,
    Incident,
    IncidentRecord,
    IncidentState,
    Intent,
    IntentState,
    Note,
    Outcome,
    OutcomeKind,
    Stage,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalNeeded:
    """Policy requires an approval, and none was requested yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalMismatch:
    """The approval does not fit what would be decided now, and why."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DecidedIntent:
    """The intent with its decision, and the incident after it."""

    incident: Incident
    intent: Intent
    notes: tuple[Note, ...]


DecisionResult: TypeAlias = ApprovalNeeded | ApprovalMismatch | DecidedIntent


def settle(
    record: IncidentRecord,
    question: Question,
    decision: Decision,
    *,
    stands_on: Sequence[Reason],
    intent_id: IntentId,
    now: datetime,
) -> DecisionResult:
    """The records to store for a decision. `stands_on` are the current reasons, for the record."""
    incident = question.incident
    answered = asked_for(record)
    needed = decision.kind is DecisionKind.NEEDS_APPROVAL and not incident.dry_run
    if needed and answered is None:
        return ApprovalNeeded()
    if answered is not None and (needed or refused_by_people(decision, answered)):
        objection = _approval_objection(question, decision, answered, needed=needed)
        if objection is not None:
            return ApprovalMismatch(reason=objection)
        decision = as_answered(decision, answered)
    intent = Intent(
        id=intent_id,
        incident_id=incident.id,
        sequence=len(record.intents),
        action=question.action,
        dry_run=incident.dry_run,
        decision=decision,
        rehearsal=question.rehearsal,
        state=IntentState.DECIDED,
        approval=answered.id if answered is not None and uses_up(decision, answered) else None,
    )
    notes = (*_rehearsal_notes(intent, question.target_problem), _decision_note(intent, stands_on))
    if not incident.dry_run and decision.kind is DecisionKind.ALLOW:
        return DecidedIntent(
            incident=replace(incident, state=IncidentState.EXECUTING), intent=intent, notes=notes
        )
    return _ended(incident, intent, notes, now)


def _approval_objection(
    question: Question, decision: Decision, answered: Approval, *, needed: bool
) -> str | None:
    """Why the answered approval does not count for this decision (promise 1)."""
    if answered.plan_hash != decision.plan_hash or not same_ground(
        question.action, answered.target_token, decision.target_token
    ):
        return f"the approval is for another state of {question.action.target}"
    said_yes = [one.by for one in answered.answers if one.approve]
    if needed and decision.terms and not decision.terms.met_by(answered.terms, said_yes):
        return "policy now requires approval by other people"
    return None


def _ended(incident: Incident, intent: Intent, notes: Sequence[Note], now: datetime) -> DecidedIntent:
    """Rehearsed or refused: the intent is finished and the plan continues."""
    if incident.dry_run:
        kind, message = OutcomeKind.REHEARSED, _rehearsed_message(intent)
    else:
        kind, message = OutcomeKind.REFUSED, _refused_message(intent.decision)
    note = Note(at=now, stage=Stage.EXECUTE, message=message, data={"intent": intent.id, "outcome": kind})
    return DecidedIntent(
        incident=replace(
            incident, state=IncidentState.OPEN, next_action=index_behind(incident, intent.action, kind)
        ),
        intent=replace(
            intent, state=IntentState.FINISHED, outcome=Outcome(kind=kind, message=message, at=now)
        ),
        notes=(*notes, note),
    )


def _rehearsal_notes(intent: Intent, problem: str | None) -> list[Note]:
    rehearsal = intent.rehearsal
    if rehearsal is None:
        if not ACTIONS[intent.action.name].kinds:
            return []
        message = f"Not rehearsed: {problem or 'no cluster connected'}."
        data: JsonObject = {"intent": intent.id}
    else:
        verb = "accepts" if rehearsal.accepted else "refuses"
        answer = rehearsal.message.rstrip(".")
        by = "Rehearsal (dryRun=All): the API server"
        if application_of(intent.action) is not None:
            by = "Rehearsal: the GitOps controller"
        elif mutes(intent.action):
            by = "Rehearsal (read only): the monitoring"
        message = f"{by} {verb} {intent.action.words}: {answer}."
        data = {"intent": intent.id, "accepted": rehearsal.accepted}
    return [Note(at=intent.decision.at, stage=Stage.POLICY, message=message, data=data)]


def _decision_note(intent: Intent, stands_on: Sequence[Reason]) -> Note:
    decision = intent.decision
    reasons: list[Json] = [
        {"reason": one.said, "source": one.source, "last_true_at": one.last_true_at.isoformat()}
        for one in stands_on
    ]
    return Note(
        at=decision.at,
        stage=Stage.POLICY,
        message=f"{intent.action.words} ({intent.action.risk} risk): "
        + "; ".join((in_words(decision.kind), *decision.reasons)),
        data={
            "intent": intent.id,
            "action": intent.action.name,
            "decision": decision.kind,
            "reasons": list(decision.reasons),
            "rules": list(decision.rules),
            "plan_hash": decision.plan_hash,
            "target_token": decision.target_token,
            **({"stands_on": reasons} if reasons else {}),
        },
    )


def _rehearsed_message(intent: Intent) -> str:
    allowed = intent.decision.kind is DecisionKind.ALLOW
    denied = intent.decision.kind is DecisionKind.DENY
    policy = "allowed by policy" if allowed else "denied by policy" if denied else "needs approval"
    if intent.rehearsal is None:
        server = "no cluster connected"
    else:
        by = "API server" if application_of(intent.action) is None else "GitOps controller"
        server = f"the {by} would {'accept' if intent.rehearsal.accepted else 'refuse'} it"
    return f"Dry run of {intent.action.words}: nothing was written; {policy}; {server}."


def _refused_message(decision: Decision) -> str:
    return f"Not executed: {decision.reasons[0] if decision.reasons else 'policy denies it'}."
