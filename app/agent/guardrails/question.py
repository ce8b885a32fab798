"""Question."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from app.agent.guardrails.disruption import Disruption
from app.agent.guardrails.limits import (
    UNLIMITED,
    Limits,
    LimitStatus,
)
from app.agent.guardrails.opt_out import Consent
from app.agent.identity.people import ApprovalTerms
from app.agent.models import (
    Action,
    ActionName,
    Brake,
    Incident,
    Plan,
    Rehearsal,
    Risk,
)
from app.agent.workload import TargetState


@dataclass(frozen=True, slots=True, kw_only=True)
class Guardrails:
    """The limits set by configuration."""

    enabled_actions: frozenset[ActionName]
    allow_high_risk: bool
    max_actions_per_incident: int
    approval_for: frozenset[Risk] = frozenset()
    """Risks for which a person must say yes."""
    approval_terms: ApprovalTerms = field(default_factory=ApprovalTerms)
    """Who must say yes; a policy may say so itself, or ask for more people."""
    shared: Limits = UNLIMITED
    """What all incidents together must stay within."""
    require_opt_in: bool = False
    """Whether owners must have let the agent in; otherwise it is enough that they do not keep it off."""
    max_replica_share: float = 1.0
    """Of a workload's replicas, how many one action may take away at once; one always."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Everything one decision depends on."""

    incident: Incident
    plan: Plan
    action: Action
    target: TargetState | None
    """The live state of the object; None when the action touches none, or it cannot be read."""
    target_problem: str | None
    """Why `target` could not be read."""
    rehearsal: Rehearsal | None
    taken: int
    """Actions of this incident that began already; undoing ones are not counted."""
    at: datetime
    brake: Brake | None = None
    """The kill switch as it stands."""
    standing: LimitStatus = field(default_factory=LimitStatus)
    """The recent actions, and how this one stands with the limits that all incidents share."""
    consent: Consent = field(default_factory=Consent)
    """What the owners of the target say about the agent."""
    disruption: Disruption | None = None
    """How many pods of the target may be missing at once; None where nothing is known of pods."""
