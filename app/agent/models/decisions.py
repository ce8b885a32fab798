"""What policy and people decide: the answer of policy, approvals, the kill switch."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from app.agent.identity.people import Answer, ApprovalTerms
from app.agent.ids import ApprovalId, IncidentId
from app.agent.models.plans import ActionName


class DecisionKind(StrEnum):
    ALLOW = "allow"
    DENY = "deny"
    NEEDS_APPROVAL = "needs_approval"

    @property
    def words(self) -> str:
        """The answer in a sentence: `allowed`, `denied` or `approval required`."""
        match self:
            case DecisionKind.ALLOW:
                return "allowed"
            case DecisionKind.DENY:
                return "denied"
            case DecisionKind.NEEDS_APPROVAL:
                return "approval required"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The recorded answer of policy for exactly one plan, action and live state (promise 1)."""

    kind: DecisionKind
    reasons: tuple[str, ...]
    plan_hash: str
    target_token: str | None
    at: datetime
    rules: tuple[str, ...] = ()
    """Which rules it rests on: `guardrails`, and the policy's own by name; empty on old records."""
    terms: ApprovalTerms | None = None
    """On which terms people are asked, where the answer is that they must be."""
    policy_roles: bool = False
    """Whether the policy engine named the roles of the terms; the configured roles do not apply then."""


class ApprovalState(StrEnum):
    PENDING = "pending"
    APPROVED = "approved"
    """Answered with yes, and not used yet."""
    DENIED = "denied"
    USED = "used"
    """Exactly one intent follows from it."""
    EXPIRED = "expired"
    VOID = "void"
    """Its subject no longer exists: the plan, or the state of the target."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """A durable request to a person, bound to one action of one plan on one live state (promise 1)."""

    id: ApprovalId
    incident_id: IncidentId
    action_index: int
    """Index into `plan.actions`."""
    action: ActionName
    plan_hash: str
    target_token: str | None
    reasons: tuple[str, ...]
    """Why policy asks."""
    requested_at: datetime
    expires_at: datetime
    state: ApprovalState = ApprovalState.PENDING
    answered_by: str | None = None
    """The people whose answers decided it."""
    answered_at: datetime | None = None
    comment: str = ""
    terms: ApprovalTerms = field(default_factory=ApprovalTerms)
    answers: tuple[Answer, ...] = ()
    """Every yes and no so far, oldest first."""
    escalated: int = 0
    """How many steps of the escalation were taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KillSwitch:
    """The kill switch: while engaged no new action begins; undo and verification go on (promise 11)."""

    engaged: bool
    by: str
    reason: str
    at: datetime
