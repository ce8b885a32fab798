"""Incidents: the query, one incident with or without its timeline, and a page of them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from app.agent.models import (
    ApprovalState,
    ByPerson,
    IncidentRecord,
    IncidentState,
    OutcomeKind,
    Trigger,
    UndoRequest,
    VerdictKind,
)
from app.agent.responders.attention import IncidentSeverity, WaitsFor, next_step, severity, waits_for
from app.schemas.actions import ActionView, DiagnosisView, LessonView, PlanView
from app.schemas.approvals import ApprovalView
from app.schemas.timeline import TimelineEntryView
from app.wire.fields import Cursor, DnsLabel, MomentOrSpan, PageLimit, SearchText


def _known_states(value: object) -> object:
    """The states of a query; an unknown one is an error of the parameter, not of its position."""
    given = value if isinstance(value, list) else [value]
    if any(one not in set(IncidentState) for one in given):
        raise PydanticCustomError("enum", "is not a valid value", {"expected": ", ".join(IncidentState)})
    return given


class IncidentQuery(BaseModel):
    """Query parameters of `GET /incidents`. Times compare with `opened_at`: since <= t < until."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: PageLimit = 50
    cursor: Cursor | None = None
    service: DnsLabel | None = None
    environment: DnsLabel | None = None
    state: Annotated[list[IncidentState], BeforeValidator(_known_states)] = Field(
        default=[], max_length=len(IncidentState), description="May be repeated: any of these states."
    )
    since: MomentOrSpan | None = None
    until: MomentOrSpan | None = None
    q: SearchText = Field(
        default="",
        description="Words, all of which service, environment, id, cause, owner or summary contain. "
        "One answer looks at 25,000 incidents: follow `next`, also from an empty page, to search the rest.",
        examples=["payments latency"],
    )
    sort: Literal["-opened_at", "opened_at"] = Field(
        default="-opened_at", description="Newest first, or oldest first."
    )


class ByPersonView(BaseModel):
    """Who did something, and when."""

    by: str
    at: datetime

    @classmethod
    def of(cls, mark: ByPerson | None) -> Self | None:
        return None if mark is None else cls(by=mark.by, at=mark.at)


class UndoRequestView(BaseModel):
    """A person's request to undo the last change of the agent."""

    by: str
    at: datetime
    reason: str
    undoes: list[str] = Field(description="The actions that it undoes, in order.")
    outcome: OutcomeKind | None = Field(description="Null while it is pending.")
    message: str = Field(description="Why it ended so; empty while it is pending.")
    ended_at: datetime | None

    @classmethod
    def of(cls, asked: UndoRequest | None) -> Self | None:
        if asked is None:
            return None
        return cls(
            by=asked.by,
            at=asked.at,
            reason=asked.text,
            undoes=list(asked.undoes),
            outcome=asked.outcome,
            message=asked.message,
            ended_at=asked.ended_at,
        )


class IncidentSummary(BaseModel):
    """An incident without its timeline."""

    id: str
    service: str
    environment: str
    state: IncidentState
    summary: str
    opened_at: datetime
    closed_at: datetime | None = Field(
        description="When it was over; null while it is active: an escalated incident is, "
        "until its service has recovered, or a person has resolved it."
    )
    triggers: list[Trigger]
    stale: bool = Field(description="Every trigger was stale on arrival: the agent takes no real action.")
    dry_run: bool
    diagnosis: DiagnosisView | None
    plan: PlanView | None
    actions: list[ActionView] = Field(description="Every action with a policy decision, in order.")
    verdict: VerdictKind | None
    verdict_reasons: list[str]
    lesson: LessonView | None
    severity: IncidentSeverity = Field(
        default=IncidentSeverity.MINOR, description="By the triggers: critical while requests fail."
    )
    waits_for: WaitsFor = Field(default=WaitsFor.NONE, description="Who has to act next.")
    next_step: str = Field(default="", description="What happens next, in one sentence.")
    owner: str | None = Field(default=None, description="The person responsible for it.")
    acknowledged: ByPersonView | None = Field(default=None, description="Who acknowledged it first.")
    taken_over: ByPersonView | None = Field(
        default=None, description="Who handles it instead of the agent, which has stopped on it."
    )
    resolved: ByPersonView | None = Field(
        default=None,
        description="Who resolved it by hand.",
    )
    undo: UndoRequestView | None = Field(
        default=None,
        description="The last request of a person to undo what the agent changed.",
    )

    @classmethod
    def of(cls, record: IncidentRecord) -> Self:
        return cls.model_validate(_incident_fields(record))


class IncidentView(IncidentSummary):
    """An incident with its timeline and its approvals."""

    pending_approval: ApprovalView | None = Field(
        description="The approval that the incident awaits, if any."
    )
    approvals: list[ApprovalView] = Field(description="All approval requests, oldest first.")
    timeline: list[TimelineEntryView]
    timeline_length: int | None = Field(
        default=None, description="Number of entries written; a shorter `timeline` was truncated."
    )
    timeline_head: str | None = Field(
        default=None, description="The hash of the last entry, stored separately from the timeline."
    )
    timeline_next: str | None = Field(
        default=None,
        description="With timeline_limit: the timeline_cursor of the next part, if any.",
    )

    @classmethod
    def of(cls, record: IncidentRecord, timeline_next: int | None = None) -> Self:
        asked = [ApprovalView.of(approval, record.incident) for approval in record.approvals]
        pending = [view for view in asked if view.state is ApprovalState.PENDING]
        return cls.model_validate(
            {
                **_incident_fields(record),
                "pending_approval": pending[-1] if pending else None,
                "approvals": asked,
                "timeline": [TimelineEntryView.of(entry) for entry in record.timeline],
                "timeline_length": record.timeline_length,
                "timeline_head": record.timeline_head,
                "timeline_next": None if timeline_next is None else str(timeline_next),
            }
        )


def _incident_fields(record: IncidentRecord) -> dict[str, object]:
    incident = record.incident
    verdict = incident.verdict
    return {
        "id": incident.id,
        "service": incident.key.service,
        "environment": incident.key.environment,
        "state": incident.state,
        "summary": incident.summary,
        "opened_at": incident.opened_at,
        "closed_at": incident.over_at,
        "triggers": list(incident.triggers),
        "stale": incident.stale,
        "dry_run": incident.dry_run,
        "diagnosis": incident.diagnosis and DiagnosisView.of(incident.diagnosis),
        "plan": incident.plan and PlanView.of(incident.plan),
        "actions": [ActionView.of(intent) for intent in record.intents],
        "verdict": verdict and verdict.kind,
        "verdict_reasons": list(verdict.reasons) if verdict else [],
        "lesson": incident.lesson and LessonView.of(incident.lesson),
        "severity": severity(incident),
        "waits_for": waits_for(incident),
        "next_step": next_step(incident),
        "owner": incident.owner,
        "acknowledged": ByPersonView.of(incident.acknowledged),
        "taken_over": ByPersonView.of(incident.taken_over),
        "resolved": ByPersonView.of(incident.resolved),
        "undo": UndoRequestView.of(incident.undo),
    }


class IncidentPage(BaseModel):
    """Incidents, newest first. `next` is the cursor of the next page, null on the last."""

    items: list[IncidentSummary]
    next: str | None
