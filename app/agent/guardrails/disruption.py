"""How many pods of a service a change takes away at once, and whether that is too many (promise 4).

Pure. Policy asks before every action. What a rolling change may take away is
what the workload's own strategy lets go missing; the API server's eviction
budgets (PodDisruptionBudgets) do not bind a rollout, so the agent holds its
actions to them itself. How many pods are well at the moment does not count: a
rollback is the remedy for pods that are not.
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
    """How many pods it counts when all are there."""
    desired_healthy: int
    """How many of them must stay."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Disruption:
    """What a workload lets go missing while its pods are replaced."""

    replicas: int
    """As asked for."""
    missing_at_once: int
    """The most pods that its rollout strategy lets be missing."""
    budgets: tuple[DisruptionBudget, ...] = ()
    unread: str | None = None
    """Why budgets could not be read; None when they were."""


def disturbed_by(action: Action, disruption: Disruption) -> int:
    """How many pods the action takes away at once."""
    if action.target is None or action.target.kind != "Deployment":
        return 0
    wanted = action.parameters.get("replicas")
    if action.name is ActionName.SCALE and isinstance(wanted, int):
        return max(0, disruption.replicas - wanted)
    return disruption.missing_at_once if action.name in _ROLLING else 0


def too_many(action: Action, disruption: Disruption, max_share: float) -> tuple[str, ...]:
    """Why the action would take away too many pods at once; empty means it would not."""
    disturbed = disturbed_by(action, disruption)
    if disturbed == 0:
        return ()
    reasons = []
    allowed = max(1, int(max_share * disruption.replicas))
    if disturbed > allowed:
        reasons.append(
            f"{action.name} may take away {disturbed} of {disruption.replicas} replicas at once, "
            f"and MAX_REPLICA_SHARE={max_share:g} allows {allowed}"
        )
    reasons.extend(
        f"{action.name} may leave {budget.expected_pods - disturbed} pods, and "
        f"PodDisruptionBudget {budget.name} wants {budget.desired_healthy}"
        for budget in disruption.budgets
        if budget.expected_pods - disturbed < budget.desired_healthy
    )
    return tuple(reasons)
