"""Approvals: the query, the answer of a person, and what the API shows of them."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from app.agent.approvals.answer import said_yes
from app.agent.identity.people import Answer, Door
from app.agent.models import ActionName, Approval, ApprovalState, Incident
from app.schemas.actions import PlannedActionView
from app.wire.events import _Request
from app.wire.fields import TAKEN_FROM_IDENTITY, Cursor, PageLimit, Person, Remark


class ApprovalQuery(BaseModel):
    """Query parameters of `GET /approvals`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: PageLimit = 50
    cursor: Cursor | None = None
    state: ApprovalState | None = None


class AnswerRequest(_Request):
    """The answer of a person to an approval request."""

    decision: Literal["approve", "deny"]
    by: Person | None = Field(
        default=None, description=f"Who answers. {TAKEN_FROM_IDENTITY}", examples=["ann"]
    )
    comment: Remark = Field(default="", examples=["seen with the release team"])

    @property
    def approve(self) -> bool:
        return self.decision == "approve"


class AnswerView(BaseModel):
    """The answer of one person."""

    by: str
    decision: Literal["approve", "deny"]
    at: datetime
    comment: str
    door: Door = Field(description="The channel of the answer.")
    verified: bool = Field(description="Whether the name is authenticated.")

    @classmethod
    def of(cls, answer: Answer) -> Self:
        return cls(
            by=answer.by,
            decision="approve" if answer.approve else "deny",
            at=answer.at,
            comment=answer.comment,
            door=answer.door,
            verified=answer.verified,
        )


class ApprovalView(BaseModel):
    """An approval request and its answers; it covers one action of one plan on one state of the object."""

    id: str
    incident_id: str
    service: str
    environment: str
    action: ActionName
    planned: PlannedActionView | None = Field(
        description="The action in full; null once the incident has another plan."
    )
    plan_hash: str
    target_token: str | None = Field(description="The state of the object that the approval is bound to.")
    reasons: list[str] = Field(description="Why policy requires approval.")
    requested_at: datetime
    expires_at: datetime
    state: ApprovalState
    decision: Literal["approve", "deny"] | None = Field(description="The decision; null without an answer.")
    answered_by: str | None
    answered_at: datetime | None
    comment: str
    roles: list[str] = Field(
        description="One of these roles, or one of the escalation, is required; empty: none is required."
    )
    people: int = Field(
        description="Number of different people who must approve; one denial is enough to deny."
    )
    not_by: list[str] = Field(
        description="People who cannot approve: they requested the action, or sent a signal behind it."
    )
    answers: list[AnswerView] = Field(description="All answers so far, oldest first.")

    @classmethod
    def of(cls, approval: Approval, incident: Incident) -> Self:
        return cls(
            id=approval.id,
            incident_id=approval.incident_id,
            service=incident.key.service,
            environment=incident.key.environment,
            action=approval.action,
            planned=_planned(approval, incident),
            plan_hash=approval.plan_hash,
            target_token=approval.target_token,
            reasons=list(approval.reasons),
            requested_at=approval.requested_at,
            expires_at=approval.expires_at,
            state=approval.state,
            decision=_said(approval),
            answered_by=approval.answered_by,
            answered_at=approval.answered_at,
            comment=approval.comment,
            roles=sorted(approval.terms.roles),
            people=approval.terms.people,
            not_by=list(approval.terms.not_by),
            answers=[AnswerView.of(answer) for answer in approval.answers],
        )


def _planned(approval: Approval, incident: Incident) -> PlannedActionView | None:
    plan = incident.plan
    if plan is None or plan.hash != approval.plan_hash or approval.action_index >= len(plan.actions):
        return None
    return PlannedActionView.of(plan.actions[approval.action_index])


def _said(approval: Approval) -> Literal["approve", "deny"] | None:
    match said_yes(approval):
        case None:
            return None
        case yes:
            return "approve" if yes else "deny"


class ApprovalList(BaseModel):
    """Approvals, newest first. `next` is the cursor of the next page, null on the last."""

    items: list[ApprovalView]
    next: str | None
