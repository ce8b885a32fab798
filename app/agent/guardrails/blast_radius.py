"""Whether an action makes too many pods unavailable at once (promise 4).

Pure. Policy checks it before every action. A rolling change makes at most as many pods
unavailable as the workload's strategy allows. PodDisruptionBudgets do not limit a
rollout, so the agent applies them to its actions itself. Pods that are unhealthy now do
not count: a rollback is their remedy.
"""

from __future__ import annotations

from app.agent.actions import ACTIONS
from app.agent.guardrails.disruption import Disruption
from app.agent.models import Action


def pods_taken(action: Action, disruption: Disruption) -> int:
    """How many pods the action makes unavailable at once."""
    return ACTIONS[action.name].pods_taken(action, disruption)


def too_many(action: Action, disruption: Disruption, max_share: float) -> tuple[str, ...]:
    """Why the action would make too many pods unavailable at once; empty if it would not."""
    taken = pods_taken(action, disruption)
    if taken == 0:
        return ()
    reasons = []
    allowed = max(1, int(max_share * disruption.replicas))
    if taken > allowed:
        reasons.append(
            f"{action.name.words} may make {taken} of {disruption.replicas} replicas unavailable at once, "
            f"and MAX_REPLICA_SHARE={max_share:g} allows {allowed}"
        )
    reasons.extend(
        f"{action.name.words} may leave {budget.expected_pods - taken} pods, and "
        f"PodDisruptionBudget {budget.name} requires {budget.desired_healthy}"
        for budget in disruption.budgets
        if budget.expected_pods - taken < budget.desired_healthy
    )
    return tuple(reasons)
