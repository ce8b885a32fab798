"""Diagnosis, plan, actions and lesson of an incident, as the API shows them."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, Field

from app.agent.models import (
    Action,
    ActionName,
    Cause,
    DecisionKind,
    Diagnosis,
    Intent,
    IntentState,
    Lesson,
    OutcomeKind,
    Plan,
    Risk,
)
from app.agent.workload import ObjectRef


class HypothesisView(BaseModel):
    """A less likely cause."""

    cause: Cause
    confidence: float
    evidence: list[str]
    evidence_against: list[str]


class DiagnosisView(BaseModel):
    """The best hypothesis, and the others; confidence is an ordering from 0 to 1, not a probability."""

    cause: Cause
    confidence: float
    evidence: list[str]
    evidence_against: list[str]
    alternatives: list[HypothesisView]

    @classmethod
    def of(cls, diagnosis: Diagnosis) -> Self:
        best, *others = diagnosis.hypotheses
        return cls(
            cause=best.cause,
            confidence=best.confidence,
            evidence=list(best.evidence_for),
            evidence_against=list(best.evidence_against),
            alternatives=[
                HypothesisView(
                    cause=other.cause,
                    confidence=other.confidence,
                    evidence=list(other.evidence_for),
                    evidence_against=list(other.evidence_against),
                )
                for other in others
            ],
        )


class TargetView(BaseModel):
    """The Kubernetes object of an action."""

    kind: str
    namespace: str
    name: str
    cluster: str | None = Field(
        default=None,
        description="One of CLUSTERS, where the cluster has a name.",
        exclude_if=lambda name: name is None,
    )

    @classmethod
    def of(cls, ref: ObjectRef | None) -> Self | None:
        if ref is None:
            return None
        return cls(kind=ref.kind, namespace=ref.namespace, name=ref.name, cluster=ref.cluster or None)


class PlannedActionView(BaseModel):
    """One step of the plan."""

    name: ActionName
    risk: Risk
    target: TargetView | None
    parameters: dict[str, str | int | float | bool | None]
    expected_effect: str
    undo: str | None

    @classmethod
    def of(cls, action: Action) -> Self:
        return cls(
            name=action.name,
            risk=action.risk,
            target=TargetView.of(action.target),
            parameters=dict(action.parameters),
            expected_effect=action.expected_effect,
            undo=action.undo,
        )


class RejectedRunbookView(BaseModel):
    """A runbook that was not chosen, with the reason."""

    runbook: str
    reason: str


class PlanView(BaseModel):
    """The approved runbook chosen, its steps, and why every other runbook was not chosen."""

    runbook: str | None = Field(description="id@version; null when no runbook fits.")
    hash: str = Field(description="Every decision on this plan is bound to this hash.")
    actions: list[PlannedActionView]
    rejected: list[RejectedRunbookView]
    handover: list[str] = Field(
        default_factory=list, description="The instructions of a runbook that hands the incident to a person."
    )

    @classmethod
    def of(cls, plan: Plan) -> Self:
        return cls(
            runbook=plan.runbook,
            hash=plan.hash,
            actions=[PlannedActionView.of(action) for action in plan.actions],
            rejected=[RejectedRunbookView(runbook=r.runbook, reason=r.reason) for r in plan.rejected],
            handover=list(plan.handover),
        )


class RehearsalView(BaseModel):
    """The response of the API server to the same request with `dryRun=All`."""

    accepted: bool
    message: str


class ActionView(BaseModel):
    """An action with its policy decision and its outcome."""

    id: str
    name: ActionName
    risk: Risk
    target: TargetView | None
    parameters: dict[str, str | int | float | bool | None]
    decision: DecisionKind
    reasons: list[str]
    rules: list[str] = Field(
        default_factory=list, description="The rules that decided; empty on records of an older version."
    )
    dry_run: bool
    rehearsal: RehearsalView | None
    state: IntentState
    outcome: OutcomeKind | None = Field(description="Null while the action is in progress.")
    outcome_message: str | None
    undoes: str | None = Field(description="The action that this one undoes.")
    requested_by: str | None = Field(default=None, description="Who asked for this undo.")
    approval: str | None = Field(description="The approval that it used, when policy required one.")

    @classmethod
    def of(cls, intent: Intent) -> Self:
        rehearsal, outcome = intent.rehearsal, intent.outcome
        return cls(
            id=intent.id,
            name=intent.action.name,
            risk=intent.action.risk,
            target=TargetView.of(intent.action.target),
            parameters=dict(intent.action.parameters),
            decision=intent.decision.kind,
            reasons=list(intent.decision.reasons),
            rules=list(intent.decision.rules),
            dry_run=intent.dry_run,
            rehearsal=rehearsal and RehearsalView(accepted=rehearsal.accepted, message=rehearsal.message),
            state=intent.state,
            outcome=outcome and outcome.kind,
            outcome_message=outcome and outcome.message,
            undoes=intent.undoes,
            requested_by=intent.requested_by,
            approval=intent.approval,
        )


class LessonView(BaseModel):
    """The lesson of a closed incident."""

    cause: Cause
    runbook: str | None
    actions: list[ActionName]
    worked: bool | None = Field(description="Null when no action was taken.")
    recovered_alone: bool
    seconds_to_recover: float | None

    @classmethod
    def of(cls, lesson: Lesson) -> Self:
        return cls(
            cause=lesson.cause,
            runbook=lesson.runbook,
            actions=list(lesson.actions),
            worked=lesson.worked,
            recovered_alone=lesson.recovered_alone,
            seconds_to_recover=lesson.seconds_to_recover,
        )
