"""One attempt at one action: its rehearsal, its state, its outcome."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from app.agent.ids import ApprovalId, IncidentId, IntentId, JsonObject
from app.agent.models.decisions import Decision
from app.agent.models.plans import Action
from app.agent.workload import ObjectRef


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """The answer of the API server to the same request with `dryRun=All`."""

    accepted: bool
    message: str


class OutcomeKind(StrEnum):
    DONE = "done"
    REHEARSED = "rehearsed"
    """Dry run: the request was answered by the API server, nothing was written."""
    REFUSED = "refused"
    """Not attempted: policy, precondition or brake."""
    FAILED = "failed"
    """Attempted, and certainly without effect."""
    UNKNOWN = "unknown"
    """Attempted with an unknown outcome; escalated to a person."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    kind: OutcomeKind
    message: str
    at: datetime
    look_anew: bool = False
    """Refused because the state of the decision no longer exists: the incident is diagnosed again."""


class IntentState(StrEnum):
    DECIDED = "decided"
    EXECUTING = "executing"
    FINISHED = "finished"


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The specification of an object before an action, enough to restore it. Opaque to the loop."""

    ref: ObjectRef
    token: str
    body: JsonObject
    available: int | None = None
    """How many replicas of the service were available then, where that was known."""
    sent_at: str | None = None
    """The version of the object that the first write is bound to; None in records of an older release."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """One attempt at one action: decided, then durable, then (at most once) real (promise 2)."""

    id: IntentId
    incident_id: IncidentId
    sequence: int
    """0, 1, ... within the incident."""
    action: Action
    dry_run: bool
    decision: Decision
    rehearsal: Rehearsal | None
    state: IntentState
    snapshot: Snapshot | None = None
    """Taken right before the effect."""
    outcome: Outcome | None = None
    applied_token: str | None = None
    """Token of the target after the effect: an undo is refused if the changed parts have changed again."""
    undoes: IntentId | None = None
    """The intent that this one undoes."""
    started_at: datetime | None = None
    attempts: int = 0
    """The number of attempts: one, and another one after an interruption."""
    approval: ApprovalId | None = None
    """The approval that this intent used up, where policy asked for one."""
    requested_by: str | None = None
    """The person who asked for this undo, by name; None for every other intent."""

    @property
    def own_undo(self) -> bool:
        """Whether the agent itself decided to undo: no guardrail stops that (promise 11)."""
        return self.undoes is not None and self.requested_by is None
