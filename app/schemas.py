"""HTTP models: what the API takes and gives, and the way to and from the domain.

Only `app.api` uses them. Requests are strict: no unknown field, no coercion, no
time without an offset. Whatever passes here can be stored and reckoned with.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from app.agent.approvals.answer import said_yes
from app.agent.guardrails.status import Braking, CircuitStanding, FreezeStanding
from app.agent.identity.people import Answer, Door, Sender, SenderKind
from app.agent.ids import IncidentId
from app.agent.models import (
    Action,
    ActionName,
    Approval,
    ApprovalState,
    Brake,
    Cause,
    DecisionKind,
    Diagnosis,
    DispositionKind,
    Incident,
    IncidentRecord,
    IncidentState,
    Intent,
    IntentState,
    Lesson,
    OutcomeKind,
    Plan,
    Risk,
    SignalKind,
    Stage,
    TimelineEntry,
    Trigger,
    VerdictKind,
)
from app.agent.ports.signals import Accepted, SignalRecord
from app.agent.workload import ObjectRef
from app.wire.events import _Request
from app.wire.fields import (
    Cursor,
    DnsLabel,
    Moment,
    PageLimit,
    Person,
    Remark,
)

# ------------------------------------------------------------------ requests


class IncidentQuery(BaseModel):
    """Query parameters of `GET /incidents`. Times compare with `opened_at`: since <= t < until."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: PageLimit = 50
    cursor: Cursor | None = None
    service: DnsLabel | None = None
    environment: DnsLabel | None = None
    state: IncidentState | None = None
    since: Moment | None = None
    until: Moment | None = None


MOST_ENTRIES = 500
"""Timeline entries in one part."""


class TimelineQuery(BaseModel):
    """Query parameters of `GET /incidents/{id}`; without any the whole timeline is given."""

    model_config = ConfigDict(frozen=True)

    timeline_limit: int | None = Field(
        default=None, ge=1, le=MOST_ENTRIES, description="At most so many timeline entries, oldest first."
    )
    timeline_cursor: int | None = Field(
        default=None, ge=0, le=2**31 - 1, description="The timeline_next of the part before."
    )


class RunOnceQuery(BaseModel):
    """Query parameters of `POST /agent/run-once`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    service: DnsLabel = Field(examples=["payments-api"])
    environment: DnsLabel | None = Field(
        default=None, description="Every environment that the service is known in, when left out."
    )


class ApprovalQuery(BaseModel):
    """Query parameters of `GET /approvals`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: PageLimit = 50
    cursor: Cursor | None = None
    state: ApprovalState | None = None


_TAKEN = "Needed, and taken at its word, while no identity is configured; else known by token or sign-on."


class AnswerRequest(_Request):
    """What somebody says to a request for an approval."""

    decision: Literal["approve", "deny"]
    by: Person | None = Field(default=None, description=f"Who answers. {_TAKEN}", examples=["ann"])
    comment: Remark = Field(default="", examples=["seen with the release team"])

    @property
    def approve(self) -> bool:
        return self.decision == "approve"


class BrakeRequest(_Request):
    """How the kill switch is to stand."""

    engaged: bool
    by: Person | None = Field(default=None, description=f"Who sets it. {_TAKEN}", examples=["ann"])
    reason: Remark = Field(
        default="",
        validate_default=True,
        description="Needed to engage it.",
        examples=["database migration until 18:00"],
    )

    @field_validator("reason")
    @classmethod
    def _says_why(cls, reason: str, info: ValidationInfo) -> str:
        if info.data.get("engaged") and not reason:
            raise PydanticCustomError("no_reason", "is missing: nobody would know why nothing is done")
        return reason


class CircuitRequest(_Request):
    """Close a circuit breaker: what failed until now counts no more."""

    environment: DnsLabel | None = Field(default=None, description="With `service`; neither: the cluster's.")
    service: DnsLabel | None = None
    by: Person | None = Field(default=None, description=f"Who closes it. {_TAKEN}", examples=["ann"])
    reason: Remark = Field(min_length=1, examples=["the registry is back"])

    @model_validator(mode="after")
    def _names_one(self) -> Self:
        if (self.environment is None) is not (self.service is None):
            raise PydanticCustomError(
                "half_a_service", "names a service by half: give environment and service"
            )
        return self


# ------------------------------------------------------------------ answers: signals


class AcceptedView(BaseModel):
    """What became of one entry of a request. Durable when you read this."""

    signal_id: str
    disposition: DispositionKind
    reason: str
    incident_id: str | None = Field(description="The incident it opened or joined.")
    duplicate_of: str | None = Field(description="The signal that told the same before.")

    @classmethod
    def of(cls, accepted: Accepted) -> Self:
        disposition = accepted.disposition
        return cls(
            signal_id=accepted.signal_id,
            disposition=disposition.kind,
            reason=disposition.reason,
            incident_id=disposition.incident_id,
            duplicate_of=disposition.duplicate_of,
        )


class AcceptedList(BaseModel):
    """One entry per entry of the list that was sent, in its order."""

    items: list[AcceptedView]


class UnmappedAlertView(BaseModel):
    """An alert that became no signal, and what would have to change for it to become one."""

    name: str
    fingerprint: str
    reason: str


class WebhookAccepted(AcceptedList):
    """One entry per alert that became a signal, in order; the others with the reason."""

    unmapped: list[UnmappedAlertView]


class SenderView(BaseModel):
    """Who sent a signal, as far as it is known."""

    kind: SenderKind
    name: str = Field(description="The holder of the token, the webhook, the stream, or the address.")
    token_id: str | None = Field(description="The token or session that proved it.")
    address: str | None = Field(description="The peer of the connection.")

    @classmethod
    def of(cls, sender: Sender | None) -> Self | None:
        if sender is None:
            return None
        return cls(kind=sender.kind, name=sender.name, token_id=sender.token_id, address=sender.address)


class SignalView(BaseModel):
    """A signal and what became of it."""

    signal_id: str
    kind: SignalKind
    service: str
    environment: str
    source: str
    observed_at: datetime
    received_at: datetime
    stale: bool
    sender: SenderView | None = Field(description="Null for what the agent saw itself.")
    disposition: DispositionKind
    reason: str
    incident_id: str | None
    duplicate_of: str | None

    @classmethod
    def of(cls, record: SignalRecord) -> Self:
        signal, disposition = record.signal, record.disposition
        return cls(
            signal_id=signal.id,
            kind=signal.kind,
            service=signal.key.service,
            environment=signal.key.environment,
            source=signal.source,
            observed_at=signal.observed_at,
            received_at=signal.received_at,
            stale=signal.stale,
            sender=SenderView.of(signal.sender),
            disposition=disposition.kind,
            reason=disposition.reason,
            incident_id=disposition.incident_id,
            duplicate_of=disposition.duplicate_of,
        )


# ------------------------------------------------------------------ answers: incidents


class HypothesisView(BaseModel):
    """A cause that ranked below the first."""

    cause: Cause
    confidence: float
    evidence: list[str]
    evidence_against: list[str]


class DiagnosisView(BaseModel):
    """The best hypothesis, and the others; confidence is an ordering from 0 to 1, no probability."""

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
    """The object in the cluster that an action is about."""

    kind: str
    namespace: str
    name: str

    @classmethod
    def of(cls, ref: ObjectRef | None) -> Self | None:
        return None if ref is None else cls(kind=ref.kind, namespace=ref.namespace, name=ref.name)


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
    """A runbook that was not chosen, and why."""

    runbook: str
    reason: str


class PlanView(BaseModel):
    """The approved runbook chosen, its steps, and why every other runbook was not chosen."""

    runbook: str | None = Field(description="id@version; null when no runbook fits.")
    hash: str = Field(description="What every decision on this plan is bound to.")
    actions: list[PlannedActionView]
    rejected: list[RejectedRunbookView]

    @classmethod
    def of(cls, plan: Plan) -> Self:
        return cls(
            runbook=plan.runbook,
            hash=plan.hash,
            actions=[PlannedActionView.of(action) for action in plan.actions],
            rejected=[RejectedRunbookView(runbook=r.runbook, reason=r.reason) for r in plan.rejected],
        )


class RehearsalView(BaseModel):
    """What the API server said to the same request with `dryRun=All`."""

    accepted: bool
    message: str


class ActionView(BaseModel):
    """An action that was decided on, with what came of it."""

    id: str
    name: ActionName
    risk: Risk
    target: TargetView | None
    parameters: dict[str, str | int | float | bool | None]
    decision: DecisionKind
    reasons: list[str]
    rules: list[str] = Field(
        default_factory=list, description="Which rules decided; empty on records of an older version."
    )
    dry_run: bool
    rehearsal: RehearsalView | None
    state: IntentState
    outcome: OutcomeKind | None = Field(description="Null while it is not finished.")
    outcome_message: str | None
    undoes: str | None = Field(description="The action that this one undoes.")
    approval: str | None = Field(description="The approval that it used up, where policy asked for one.")

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
            approval=intent.approval,
        )


class LessonView(BaseModel):
    """What the closed incident taught."""

    cause: Cause
    runbook: str | None
    actions: list[ActionName]
    worked: bool | None = Field(description="Null: nothing was done, so nothing was learnt about an action.")
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


class TimelineEntryView(BaseModel):
    """One line of the tamper-evident record: `hash` covers this entry and the hash before it."""

    sequence: int
    at: datetime
    stage: Stage
    message: str
    data: dict[str, JsonValue]
    hash: str

    @classmethod
    def of(cls, entry: TimelineEntry) -> Self:
        return cls.model_validate(entry, from_attributes=True)


class StepView(TimelineEntryView):
    """What one pass of the loop added to an incident's timeline."""

    incident_id: str

    @classmethod
    def of_incident(cls, incident_id: IncidentId, entry: TimelineEntry) -> Self:
        line = TimelineEntryView.of(entry)
        return cls(incident_id=incident_id, **dict(line))


class IncidentSummary(BaseModel):
    """An incident without its timeline, as lists show it."""

    id: str
    service: str
    environment: str
    state: IncidentState
    summary: str
    opened_at: datetime
    closed_at: datetime | None
    triggers: list[Trigger]
    stale: bool = Field(description="Every trigger was stale on arrival: no real action follows.")
    dry_run: bool
    diagnosis: DiagnosisView | None
    plan: PlanView | None
    actions: list[ActionView] = Field(description="Every action decided on, in order.")
    verdict: VerdictKind | None
    verdict_reasons: list[str]
    lesson: LessonView | None

    @classmethod
    def of(cls, record: IncidentRecord) -> Self:
        return cls.model_validate(_incident_fields(record))


class AnswerView(BaseModel):
    """What one person said to a request."""

    by: str
    decision: Literal["approve", "deny"]
    at: datetime
    comment: str
    door: Door = Field(description="By which way it came.")
    verified: bool = Field(description="Whether the name is proved; otherwise it is taken at its word.")

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
    """A request to people, and their answer; it covers one action of one plan on one state of the object."""

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
    reasons: list[str] = Field(description="Why policy asks.")
    requested_at: datetime
    expires_at: datetime
    state: ApprovalState
    decision: Literal["approve", "deny"] | None = Field(description="What was answered; null without answer.")
    answered_by: str | None
    answered_at: datetime | None
    comment: str
    roles: list[str] = Field(
        description="One of these is needed to answer, or one that it was escalated to; empty: anybody may."
    )
    people: int = Field(description="So many different people must say yes; one no is enough.")
    not_by: list[str] = Field(
        description="Who may not say yes: they asked for the action, or sent a signal that it rests on."
    )
    answers: list[AnswerView] = Field(description="Every yes and no so far, oldest first.")

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
    """Approvals, newest first. `next` is the cursor of the page after this, null on the last."""

    items: list[ApprovalView]
    next: str | None


class BrakeView(BaseModel):
    """The kill switch: while it is engaged no new action begins; undo and verification go on."""

    engaged: bool
    by: str | None = Field(description="Who set it last; null while it was never touched.")
    reason: str
    at: datetime | None

    @classmethod
    def of(cls, brake: Brake | None) -> Self:
        if brake is None:
            return cls(engaged=False, by=None, reason="", at=None)
        return cls(engaged=brake.engaged, by=brake.by, reason=brake.reason, at=brake.at)


class FreezeView(BaseModel):
    """A freeze window of FREEZE_WINDOWS: within it no action begins."""

    name: str
    environments: list[str] = Field(description="Where it holds; empty: everywhere.")
    services: list[str] = Field(description="For whom it holds; empty: for all.")
    holds_until: datetime | None = Field(description="Set while it holds.")
    next_start: datetime | None

    @classmethod
    def of(cls, standing: FreezeStanding) -> Self:
        window = standing.window
        return cls(
            name=window.name,
            environments=list(window.environments),
            services=list(window.services),
            holds_until=standing.holds_until,
            next_start=standing.next_start,
        )


class CircuitView(BaseModel):
    """A circuit breaker that is open, or half-open with somebody trying."""

    environment: str | None = Field(description="Null for the breaker of the cluster.")
    service: str | None
    reason: str

    @classmethod
    def of(cls, standing: CircuitStanding) -> Self:
        key = standing.key
        return cls(
            environment=None if key is None else key.environment,
            service=None if key is None else key.service,
            reason=standing.reason,
        )


class BrakesView(BaseModel):
    """Everything that holds new actions back at this moment; undo and verification go on."""

    kill_switch: BrakeView
    freezes: list[FreezeView]
    circuits: list[CircuitView] = Field(description="Only those that are not closed, the cluster's first.")

    @classmethod
    def of(cls, standing: Braking) -> Self:
        return cls(
            kill_switch=BrakeView.of(standing.kill_switch),
            freezes=[FreezeView.of(freeze) for freeze in standing.freezes],
            circuits=[CircuitView.of(circuit) for circuit in standing.circuits],
        )


class IncidentView(IncidentSummary):
    """An incident with its whole timeline, and what people were asked."""

    pending_approval: ApprovalView | None = Field(description="What the incident waits for, if it waits.")
    approvals: list[ApprovalView] = Field(description="Every approval asked for, oldest first.")
    timeline: list[TimelineEntryView]
    timeline_length: int | None = Field(
        default=None, description="How many entries were written; fewer in `timeline` means its end was cut."
    )
    timeline_head: str | None = Field(
        default=None, description="The hash of the entry that was written last, as kept beside the timeline."
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
        "closed_at": incident.closed_at,
        "triggers": list(incident.triggers),
        "stale": incident.stale,
        "dry_run": incident.dry_run,
        "diagnosis": incident.diagnosis and DiagnosisView.of(incident.diagnosis),
        "plan": incident.plan and PlanView.of(incident.plan),
        "actions": [ActionView.of(intent) for intent in record.intents],
        "verdict": verdict and verdict.kind,
        "verdict_reasons": list(verdict.reasons) if verdict else [],
        "lesson": incident.lesson and LessonView.of(incident.lesson),
    }


class IncidentPage(BaseModel):
    """Incidents, newest first. `next` is the cursor of the page after this, null on the last."""

    items: list[IncidentSummary]
    next: str | None


class RunOnceView(BaseModel):
    """What one pass of the loop did."""

    service: str
    environment: str | None
    incidents: list[IncidentView]
    steps: list[StepView] = Field(description="The timeline entries that this pass added.")
    summary: str


# ------------------------------------------------------------------ answers: health and problems


class HealthView(BaseModel):
    """The process is up."""

    status: Literal["ok"]


class VersionView(BaseModel):
    """The version of the agent."""

    version: str = Field(examples=["0.1.0"])


class CheckView(BaseModel):
    """One thing the agent depends on."""

    name: str
    ready: bool
    message: str


class ReadyView(BaseModel):
    """Everything the agent depends on answers."""

    status: Literal["ready"]
    checks: list[CheckView]


class FieldProblem(BaseModel):
    """What is wrong with one field, and how to fix it."""

    field: str = Field(examples=["[3].error_rate"])
    value: JsonValue = Field(examples=[1.5])
    message: str = Field(examples=["input should be less than or equal to 1"])
    fix: str = Field(examples=["send the share of failed requests as a number from 0 to 1, such as 0.13"])
    mend: str = Field(
        description="Deprecated: the same text as `fix`. The next release removes it.", deprecated=True
    )


class ProblemDocument(BaseModel):
    """RFC 9457: why the answer is not the one asked for."""

    type: str = Field(examples=["urn:self-healing-devops-agent:problem:invalid-content"])
    title: str
    status: int
    detail: str
    instance: str = Field(examples=["/events/metric"])
    errors: list[FieldProblem] = []
