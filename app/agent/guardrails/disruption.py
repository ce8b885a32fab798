"""How many pods a change makes unavailable at once, and whether that is too many (promise 4).

Pure. Policy checks it before every action. A rolling change makes at most as many pods
unavailable as the workload's strategy allows. PodDisruptionBudgets do not limit a
rollout, so the agent applies them to its actions itself. Pods that are unhealthy now do
not count: a rollback is their remedy.
"""

from __future__ import annotations

from dataclasses import dataclass

from app.agent.models import Action, ActionName

_ROLLING = frozenset({ActionName.RESTART, ActionName.ROLLBACK, ActionName.REVERT_CONFIG, ActionName.RESUME})


@dataclass(frozen=True, slots=True, kw_only=True)
class DisruptionBudget:
    """A PodDisruptionBudget that covers the pods of a workload."""

    name: str
    expected_pods: int
    """The expected number of pods."""
    desired_healthy: int
    """How many of them must stay available."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Disruption:
    """How many pods a workload may miss during a rollout."""

    replicas: int
    """The desired number of replicas."""
    missing_at_once: int
    """The maximum unavailable pods of its rollout strategy."""
    budgets: tuple[DisruptionBudget, ...] = ()
    unread: str | None = None
    """Why the budgets could not be read; None if they were."""


def disturbed_by(action: Action, disruption: Disruption) -> int:
    """How many pods the action makes unavailable at once."""
    if action.target is None or action.target.kind != "Deployment":
        return 0
    wanted = action.parameters.get("replicas")
    if action.name is ActionName.SCALE and isinstance(wanted, int):
        return max(0, disruption.replicas - wanted)
    return disruption.missing_at_once if action.name in _ROLLING else 0


def too_many(action: Action, disruption: Disruption, max_share: float) -> tuple[str, ...]:
    """Why the action would make too many pods unavailable at once; empty if it would not."""
    disturbed = disturbed_by(action, disruption)
    if disturbed == 0:
        return ()
    reasons = []
    allowed = max(1, int(max_share * disruption.replicas))
    if disturbed > allowed:
        reasons.append(
            f"{action.name} may make {disturbed} of {disruption.replicas} replicas unavailable at once, "
            f"and MAX_REPLICA_SHARE={max_share:g} allows {allowed}"
        )
    reasons.extend(
        f"{action.name} may leave {budget.expected_pods - disturbed} pods, and "
        f"PodDisruptionBudget {budget.name} requires {budget.desired_healthy}"
        for budget in disruption.budgets
        if budget.expected_pods - disturbed < budget.desired_healthy
    )
    return tuple(reasons)
