"""The components that the stages of the loop are made of."""

from __future__ import annotations

from dataclasses import dataclass, replace

from app.agent.actions import ENABLED_BY_DEFAULT
from app.agent.closing import Closer
from app.agent.executor import Executor
from app.agent.gitops.follow_up import FollowUp
from app.agent.observer import Observer
from app.agent.planner import PlanLimits
from app.agent.reason_check import ReasonCheck
from app.agent.responders.undo import RequestedUndo
from app.agent.runbooks import Catalogue
from app.agent.soak import Soak
from app.agent.verifier import Verifier


@dataclass(frozen=True, slots=True, kw_only=True)
class Stages:
    """The components of the stages."""

    observer: Observer
    executor: Executor
    verifier: Verifier
    soak: Soak
    closer: Closer
    follow_up: FollowUp
    undo: RequestedUndo
    catalogue: Catalogue
    plan_limits: PlanLimits
    check: ReasonCheck

    @property
    def limits_of_plans(self) -> PlanLimits:
        """The limits with the optional actions that are enabled now."""
        enabled = self.executor.policy.limits.enabled_actions
        return replace(self.plan_limits, optional=enabled - ENABLED_BY_DEFAULT)
