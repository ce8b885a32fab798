"""What policy decides on: the action with everything that the guardrails need to know about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from app.agent.guardrails.cordons import CordonLimits, NodeCordons
from app.agent.guardrails.disruption import Disruption
from app.agent.guardrails.drains import NodeLoad
from app.agent.guardrails.drift import DriftRule
from app.agent.guardrails.limits import (
    UNLIMITED,
    Limits,
    LimitStatus,
)
from app.agent.guardrails.opt_out import OptOut
from app.agent.identity.people import ApprovalTerms
from app.agent.models import (
    Action,
    ActionName,
    Incident,
    KillSwitch,
    Plan,
    Rehearsal,
    Risk,
)
from app.agent.services.terms import NO_SERVICES, ServiceCatalogue
from app.agent.workload import TargetState


@dataclass(frozen=True, slots=True, kw_only=True)
class Guardrails:
    """The limits set by configuration."""

    enabled_actions: frozenset[ActionName]
    allow_high_risk: bool
    max_actions_per_incident: int
    approval_for: frozenset[Risk] = frozenset()
    """Risks that require an approval."""
    approval_terms: ApprovalTerms = field(default_factory=ApprovalTerms)
    """Who must approve; a policy may set its own terms, or require more people."""
    shared: Limits = UNLIMITED
    """The limits that all incidents share."""
    require_opt_in: bool = False
    """Whether an opt-in is required; otherwise no opt-out is enough."""
    services: ServiceCatalogue = NO_SERVICES
    """Services for which the agent may go less far."""
    max_replica_share: float = 1.0
    """The share of a workload's replicas that one action may make unavailable; one is always allowed."""
    drift: DriftRule = DriftRule.ASK
    """The response to an action that would make an object drift from its release."""
    cordons: CordonLimits = field(default_factory=CordonLimits)
    """How many nodes may be cordoned at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetLook:
    """A target as read, or why it could not be read."""

    target: TargetState | None = None
    problem: str | None = None
    gone: bool = False
    """The object does not exist."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Everything one decision depends on."""

    incident: Incident
    plan: Plan
    action: Action
    target: TargetState | None
    """The live state of the object; None if the action has none, or it cannot be read."""
    target_problem: str | None
    """Why `target` could not be read."""
    rehearsal: Rehearsal | None
    taken: int
    """Actions of this incident that already began, without undos."""
    at: datetime
    brake: KillSwitch | None = None
    """The current state of the kill switch."""
    standing: LimitStatus = field(default_factory=LimitStatus)
    """The recent actions, and the limit status of this one."""
    opt_out: OptOut = field(default_factory=OptOut)
    """The opt-out settings of the target."""
    disruption: Disruption | None = None
    """How many pods of the target may be unavailable at once; None if pods are unknown."""
    cordons: NodeCordons | None = None
    """The nodes, for an action that cordons one."""
    load: NodeLoad | None = None
    """The node with its pods, for an action that drains it."""
    needed_by: str | None = None
    """The other incident that still needs the state that the action would remove; None if there is none."""
