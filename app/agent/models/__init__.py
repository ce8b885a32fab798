"""The values that the loop hands from stage to stage, one file a concept.

Everything here is frozen and free of effects. Times are aware and in UTC; units
stand in the names. Only `app.schemas` (HTTP) and `app.store` (SQL) know another
form of these values.
"""

from __future__ import annotations

from app.agent.models.decisions import Approval, ApprovalState, Decision, DecisionKind, KillSwitch
from app.agent.models.diagnoses import Cause, Diagnosis, Hypothesis
from app.agent.models.evidence import (
    Change,
    DependencyLevels,
    Evidence,
    FailingBeside,
    Objectives,
    SliSample,
    TelemetryHealth,
    UsualLevel,
)
from app.agent.models.incidents import ByPerson, Incident, IncidentState, Lesson, UndoRequest
from app.agent.models.intents import Intent, IntentState, Outcome, OutcomeKind, Rehearsal, Snapshot
from app.agent.models.plans import Action, ActionName, Plan, RejectedRunbook, Risk
from app.agent.models.signals import (
    ALERTS_SOURCE,
    BURN_ALERT,
    CLUSTER_SOURCE,
    METRICS_SOURCE,
    POLLED,
    TELEMETRY_SOURCES,
    UNUSUAL_ALERT,
    WATCHED,
    Alert,
    ChangeKind,
    ClusterCondition,
    Condition,
    ConfigChange,
    Deploy,
    DeployStatus,
    Disposition,
    DispositionKind,
    MetricSample,
    Payload,
    PostedSample,
    PostedSamples,
    Signal,
    SignalKind,
    Trigger,
)
from app.agent.models.timeline import IncidentRecord, Note, Stage, TimelineEntry
from app.agent.models.verification import Observation, Verdict, VerdictKind, Verification

__all__ = [
    "ALERTS_SOURCE",
    "BURN_ALERT",
    "CLUSTER_SOURCE",
    "METRICS_SOURCE",
    "POLLED",
    "TELEMETRY_SOURCES",
    "UNUSUAL_ALERT",
    "WATCHED",
    "Action",
    "ActionName",
    "Alert",
    "Approval",
    "ApprovalState",
    "ByPerson",
    "Cause",
    "Change",
    "ChangeKind",
    "ClusterCondition",
    "Condition",
    "ConfigChange",
    "Decision",
    "DecisionKind",
    "DependencyLevels",
    "Deploy",
    "DeployStatus",
    "Diagnosis",
    "Disposition",
    "DispositionKind",
    "Evidence",
    "FailingBeside",
    "Hypothesis",
    "Incident",
    "IncidentRecord",
    "IncidentState",
    "Intent",
    "IntentState",
    "KillSwitch",
    "Lesson",
    "MetricSample",
    "Note",
    "Objectives",
    "Observation",
    "Outcome",
    "OutcomeKind",
    "Payload",
    "Plan",
    "PostedSample",
    "PostedSamples",
    "Rehearsal",
    "RejectedRunbook",
    "Risk",
    "Signal",
    "SignalKind",
    "SliSample",
    "Snapshot",
    "Stage",
    "TelemetryHealth",
    "TimelineEntry",
    "Trigger",
    "UndoRequest",
    "UsualLevel",
    "Verdict",
    "VerdictKind",
    "Verification",
]
