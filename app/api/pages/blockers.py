"""Why an approval would have no effect now: said before somebody answers, not after."""

from __future__ import annotations

from app.agent.actions.target_parts import same_ground
from app.agent.guardrails.freeze import frozen
from app.agent.models import Approval, IncidentRecord
from app.api.dependencies import ApiDependencies
from app.bounds.deadline import deadline
from app.errors import AgentError, TransientError

_LOOK_SECONDS = 3.0


async def why_not_now(container: ApiDependencies, record: IncidentRecord, asked: Approval) -> list[str]:
    """The reasons for which the action cannot begin now; empty when none is known.

    A cluster that does not answer in time gives no reason: policy evaluates the action
    again before it runs.
    """
    incident, now = record.incident, container.clock.now()
    reasons = []
    switch = await container.store.guardrails.kill_switch()
    if switch is not None and switch.engaged:
        reasons.append(f"the kill switch is engaged by {switch.by}: {switch.reason}")
    executor = container.loop.stages.executor
    freeze = frozen(executor.policy.limits.shared.freezes, incident.key, now)
    if freeze is not None:
        reasons.append(freeze)
    plan = incident.plan
    if plan is None or asked.action_index >= len(plan.actions) or plan.hash != asked.plan_hash:
        return [*reasons, "the action is no longer planned"]
    action = plan.actions[asked.action_index]
    try:
        async with deadline(_LOOK_SECONDS, lambda: TransientError("no answer in time")):
            look = await executor.gatherer.look(action)
    except AgentError:
        return reasons
    changed = (
        look.target is not None
        and asked.target_token is not None
        and not same_ground(action, asked.target_token, look.target.token)
    )
    if changed and look.target is not None:
        by = look.target.changed_by or "someone"
        reasons.append(f"{action.target} was changed by {by} since the approval was requested")
    return reasons
