"""HTTP models: requests and responses of the API, and their conversion to and from the domain.

Only `app.api` uses them. Requests are strict: no unknown field, no coercion, no
time without an offset. Every valid request can be stored and processed.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from app.agent.approvals.answer import said_yes
from app.agent.guardrails.status import CircuitStatus, FreezeStatus, GuardrailStatus
from app.agent.identity.people import Answer, Door, Sender, SenderKind
from app.agent.ids import IncidentId
from app.agent.models import (
    Action,
    ActionName,
    Approval,
    ApprovalState,
    ByPerson,
    Cause,
    DecisionKind,
    Diagnosis,
    DispositionKind,
    Incident,
    IncidentRecord,
    IncidentState,
    Intent,
    IntentState,
    KillSwitch,
    Lesson,
    OutcomeKind,
    Plan,
    Risk,
    SignalKind,
    Stage,
    TimelineEntry,
    Trigger,
    UndoRequest,
    VerdictKind,
)
from app.agent.ports.store.signals import Accepted, SignalRecord
from app.agent.responders.attention import (
    IncidentSeverity,
    WaitsFor,
    next_step,
    severity,
    waits_for,
)
from app.agent.workload import ObjectRef
from app.wire.events import _Request
from app.wire.fields import (
    Cursor,
    DnsLabel,
    MomentOrSpan,
    PageLimit,
    Person,
    Remark,
    SearchText,
)

# ------------------------------------------------------------------ requests


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
        description="Words, all of which service, environment, id, cause, owner or summary contain.",
        examples=["payments latency"],
    )
    sort: Literal["-opened_at", "opened_at"] = Field(
        default="-opened_at", description="Newest first, or oldest first."
    )


MOST_ENTRIES = 500
"""Timeline entries in one part."""


class TimelineQuery(BaseModel):
    """Query parameters of `GET /incidents/{id}`; without any, the whole timeline is returned."""

    model_config = ConfigDict(frozen=True)

    timeline_limit: int | None = Field(
        default=None, ge=1, le=MOST_ENTRIES, description="Maximum number of timeline entries, oldest first."
    )
    timeline_cursor: int | None = Field(
        default=None, ge=0, le=2**31 - 1, description="The timeline_next of the previous part."
    )


class RunOnceQuery(BaseModel):
    """Query parameters of `POST /agent/run-once`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    service: DnsLabel = Field(examples=["payments-api"])
    environment: DnsLabel | None = Field(
        default=None, description="Default: every environment of the service."
    )


class ApprovalQuery(BaseModel):
    """Query parameters of `GET /approvals`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: PageLimit = 50
    cursor: Cursor | None = None
    state: ApprovalState | None = None


_TAKEN = (
    "Required without configured identity, and not verified then; otherwise the token or session gives it."
)


class AnswerRequest(_Request):
    """The answer of a person to an approval request."""

    decision: Literal["approve", "deny"]
    by: Person | None = Field(default=None, description=f"Who answers. {_TAKEN}", examples=["ann"])
    comment: Remark = Field(default="", examples=["seen with the release team"])

    @property
    def approve(self) -> bool:
        return self.decision == "approve"


class BrakeRequest(_Request):
    """The new state of the kill switch."""

    engaged: bool
    by: Person | None = Field(default=None, description=f"Who sets it. {_TAKEN}", examples=["ann"])
    reason: Remark = Field(
        default="",
        validate_default=True,
        description="Required to engage it.",
        examples=["database migration until 18:00"],
    )

    @field_validator("reason")
    @classmethod
    def _says_why(cls, reason: str, info: ValidationInfo) -> str:
        if info.data.get("engaged") and not reason:
            raise PydanticCustomError("no_reason", "is missing: the record requires a reason")
        return reason


class CircuitRequest(_Request):
    """Close a circuit breaker: failures until now no longer count."""

    environment: DnsLabel | None = Field(
        default=None, description="With `service`; without both, the breaker of the cluster."
    )
    service: DnsLabel | None = None
    by: Person | None = Field(default=None, description=f"Who closes it. {_TAKEN}", examples=["ann"])
    reason: Remark = Field(min_length=1, examples=["the registry is back"])

    @model_validator(mode="after")
    def _names_one(self) -> Self:
        if (self.environment is None) is not (self.service is None):
            raise PydanticCustomError(
                "half_a_service", "names only half of a service: give environment and service"
            )
        return self


# ------------------------------------------------------------------ answers: signals


class AcceptedView(BaseModel):
    """The disposition of one entry of a request. It is durable before the response."""

    signal_id: str
    disposition: DispositionKind
    reason: str
    incident_id: str | None = Field(description="The incident it opened or joined.")
    duplicate_of: str | None = Field(description="The earlier signal that reported the same.")

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
    """One item per entry of the request, in its order."""

    items: list[AcceptedView]


class UnmappedAlertView(BaseModel):
    """An alert that was not mapped to a signal, with the reason and the fix."""

    name: str
    fingerprint: str
    reason: str


class WebhookAccepted(AcceptedList):
    """One item per alert that was mapped to a signal, in order; the others with the reason."""

    unmapped: list[UnmappedAlertView]


class SenderView(BaseModel):
    """The sender of a signal, as far as known."""

    kind: SenderKind
    name: str = Field(description="The holder of the token, the webhook, the stream, or the address.")
    token_id: str | None = Field(description="The token or session that authenticated it.")
    address: str | None = Field(description="The peer of the connection.")

    @classmethod
    def of(cls, sender: Sender | None) -> Self | None:
        if sender is None:
            return None
        return cls(kind=sender.kind, name=sender.name, token_id=sender.token_id, address=sender.address)


class SignalView(BaseModel):
    """A signal and its disposition."""

    signal_id: str
    kind: SignalKind
    service: str
    environment: str
    source: str
    observed_at: datetime
    received_at: datetime
    stale: bool
    sender: SenderView | None = Field(description="Null for signals that the agent observed itself.")
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
    """A timeline entry that one pass of the loop added."""

    incident_id: str

    @classmethod
    def of_incident(cls, incident_id: IncidentId, entry: TimelineEntry) -> Self:
        line = TimelineEntryView.of(entry)
        return cls(incident_id=incident_id, **dict(line))


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


class BrakeView(BaseModel):
    """The kill switch: while it is engaged, no new action starts; undo and verification continue."""

    engaged: bool
    by: str | None = Field(description="Who set it last; null when it was never set.")
    reason: str
    at: datetime | None

    @classmethod
    def of(cls, brake: KillSwitch | None) -> Self:
        if brake is None:
            return cls(engaged=False, by=None, reason="", at=None)
        return cls(engaged=brake.engaged, by=brake.by, reason=brake.reason, at=brake.at)


class FreezeView(BaseModel):
    """A freeze window of FREEZE_WINDOWS: no action starts within it."""

    name: str
    environments: list[str] = Field(description="Affected environments; empty: all.")
    services: list[str] = Field(description="Affected services; empty: all.")
    holds_until: datetime | None = Field(description="End of the window; set while it is active.")
    next_start: datetime | None

    @classmethod
    def of(cls, standing: FreezeStatus) -> Self:
        window = standing.window
        return cls(
            name=window.name,
            environments=list(window.environments),
            services=list(window.services),
            holds_until=standing.holds_until,
            next_start=standing.next_start,
        )


class CircuitView(BaseModel):
    """A circuit breaker that is open, or half-open with an action in progress."""

    environment: str | None = Field(description="Null for the breaker of the cluster.")
    service: str | None
    reason: str

    @classmethod
    def of(cls, standing: CircuitStatus) -> Self:
        key = standing.key
        return cls(
            environment=None if key is None else key.environment,
            service=None if key is None else key.service,
            reason=standing.reason,
        )


class BrakesView(BaseModel):
    """The guardrails that block new actions now; undo and verification continue."""

    kill_switch: BrakeView
    freezes: list[FreezeView]
    circuits: list[CircuitView] = Field(
        description="Circuit breakers that are not closed; the breaker of the cluster is first."
    )

    @classmethod
    def of(cls, standing: GuardrailStatus) -> Self:
        return cls(
            kill_switch=BrakeView.of(standing.kill_switch),
            freezes=[FreezeView.of(freeze) for freeze in standing.freezes],
            circuits=[CircuitView.of(circuit) for circuit in standing.circuits],
        )


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


class RunOnceView(BaseModel):
    """The result of one pass of the loop."""

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
    sandbox: bool = Field(default=False, description="The cluster and its metrics are simulated.")


class ScenarioView(BaseModel):
    """A scenario that the sandbox offers."""

    name: str = Field(examples=["bad-release"])
    title: str = Field(examples=["A bad release"])
    about: str


class ScenarioRunView(BaseModel):
    """One run of a scenario in the sandbox. Times are those of the simulation."""

    scenario: str = Field(examples=["bad-release"])
    title: str
    environment: str = Field(
        description="Its services and incidents are in this environment.", examples=["sandbox"]
    )
    started_at: datetime
    ends_at: datetime = Field(description="The horizon of the scenario; its services run on.")


class SandboxView(BaseModel):
    """The sandbox: its time, the scenarios on offer, and the one that was started last."""

    now: datetime = Field(description="The simulated time.")
    speed: float = Field(description="Simulated seconds in a second.", examples=[10])
    scenarios: list[ScenarioView]
    run: ScenarioRunView | None = Field(description="The newest run; null before the first start.")


class CheckView(BaseModel):
    """One dependency of the agent."""

    name: str
    ready: bool
    message: str


class ReadyView(BaseModel):
    """All dependencies respond."""

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
    """An error response (RFC 9457)."""

    type: str = Field(examples=["urn:self-healing-devops-agent:problem:invalid-content"])
    title: str
    status: int
    detail: str
    instance: str = Field(examples=["/events/metric"])
    errors: list[FieldProblem] = []
