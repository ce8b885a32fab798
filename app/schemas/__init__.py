"""HTTP models, one file a concept: requests and responses of the API, converted to and from the domain.

Only `app.api` uses them. Requests are strict: no unknown field, no coercion, no
time without an offset. Every valid request can be stored and processed.
"""

from __future__ import annotations

from app.schemas.actions import (
    ActionView,
    DiagnosisView,
    HypothesisView,
    LessonView,
    PlannedActionView,
    PlanView,
    RehearsalView,
    RejectedRunbookView,
    TargetView,
)
from app.schemas.approvals import AnswerRequest, AnswerView, ApprovalList, ApprovalQuery, ApprovalView
from app.schemas.guardrails import (
    BrakeRequest,
    BrakesView,
    BrakeView,
    CircuitRequest,
    CircuitView,
    FreezeView,
)
from app.schemas.health import CheckView, HealthView, ReadyView, VersionView
from app.schemas.incidents import ByPersonView, IncidentPage, IncidentQuery, IncidentSummary, IncidentView
from app.schemas.problems import FieldProblem, ProblemDocument
from app.schemas.runs import RunOnceQuery, RunOnceView
from app.schemas.sandbox import SandboxView, ScenarioRunView, ScenarioView
from app.schemas.signals import (
    AcceptedList,
    AcceptedView,
    SenderView,
    SignalView,
    UnmappedAlertView,
    WebhookAccepted,
)
from app.schemas.timeline import MOST_ENTRIES, StepView, TimelineEntryView, TimelineQuery

__all__ = [
    "MOST_ENTRIES",
    "AcceptedList",
    "AcceptedView",
    "ActionView",
    "AnswerRequest",
    "AnswerView",
    "ApprovalList",
    "ApprovalQuery",
    "ApprovalView",
    "BrakeRequest",
    "BrakeView",
    "BrakesView",
    "ByPersonView",
    "CheckView",
    "CircuitRequest",
    "CircuitView",
    "DiagnosisView",
    "FieldProblem",
    "FreezeView",
    "HealthView",
    "HypothesisView",
    "IncidentPage",
    "IncidentQuery",
    "IncidentSummary",
    "IncidentView",
    "LessonView",
    "PlanView",
    "PlannedActionView",
    "ProblemDocument",
    "ReadyView",
    "RehearsalView",
    "RejectedRunbookView",
    "RunOnceQuery",
    "RunOnceView",
    "SandboxView",
    "ScenarioRunView",
    "ScenarioView",
    "SenderView",
    "SignalView",
    "StepView",
    "TargetView",
    "TimelineEntryView",
    "TimelineQuery",
    "UnmappedAlertView",
    "VersionView",
    "WebhookAccepted",
]
