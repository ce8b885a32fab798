"""Why an approval or an undo would have no effect now: shown before a person asks."""

from __future__ import annotations

from app.agent.actions.restore import restore_of
from app.agent.actions.target_parts import same_ground
from app.agent.execution.undo import not_to_undo
from app.agent.guardrails.freeze import frozen
from app.agent.guardrails.question import TargetLook
from app.agent.models import Action, Approval, Incident, IncidentRecord, KillSwitch
from app.agent.policy import forbidden_now
from app.agent.responders.undo_request import last_change
from app.api.dependencies import ApiDependencies
from app.bounds.deadline import deadline
from app.errors import AgentError, TransientError

_LOOK_SECONDS = 3.0


async def why_not_now(container: ApiDependencies, record: IncidentRecord, asked: Approval) -> list[str]:
    """The reasons for which the action cannot begin now; empty when none is known.

    A cluster that does not answer in time gives no reason: policy evaluates the action
    again before it runs.
    """
    return await why_not_under(container, record, asked, await container.store.guardrails.kill_switch())


async def why_not_under(
    container: ApiDependencies, record: IncidentRecord, asked: Approval, switch: KillSwitch | None
) -> list[str]:
    """`why_not_now` with this kill switch, for callers with many approvals."""
    incident = record.incident
    reasons = _stopped(container, incident, switch)
    plan = incident.plan
    if plan is None or asked.action_index >= len(plan.actions) or plan.hash != asked.plan_hash:
        return [*reasons, "the action is no longer planned"]
    action = plan.actions[asked.action_index]
    look = await _look(container, action)
    changed = (
        look is not None
        and look.target is not None
        and asked.target_token is not None
        and not same_ground(action, asked.target_token, look.target.token)
    )
    if changed and look is not None and look.target is not None:
        by = look.target.changed_by or "someone"
        reasons.append(f"{action.target} was changed by {by} since the approval was requested")
    return reasons


async def why_no_undo_now(container: ApiDependencies, record: IncidentRecord) -> list[str]:
    """The reasons for which a requested undo cannot begin now; empty when none is known.

    The request itself must be possible (`why_not_to_ask`).
    """
    incident, limits = record.incident, container.loop.stages.executor.policy.limits
    reasons = _stopped(container, incident, await container.store.guardrails.kill_switch())
    if container.settings_in_force.dry_run:
        reasons.append("dry run (DRY_RUN=true): the agent writes nothing")
    if incident.state.closed:
        open_now = await container.store.incidents.open_of_service(
            incident.key.service, incident.key.environment
        )
        reasons += [f"incident {other.id} of the service is open" for other in open_now]
    for undone in last_change(record):
        action = restore_of(undone.action)
        if action is None:
            continue
        reasons += forbidden_now(action, incident.key, limits)
        look = await _look(container, action)
        if look is not None and (look.gone or look.target is not None):
            reasons += [why] if (why := not_to_undo(undone, look)) is not None else []
    return list(dict.fromkeys(reasons))


def _stopped(container: ApiDependencies, incident: Incident, switch: KillSwitch | None) -> list[str]:
    """Kill switch and freeze windows."""
    reasons = []
    if switch is not None and switch.engaged:
        reasons.append(f"the kill switch is engaged by {switch.by}: {switch.reason}")
    limits = container.loop.stages.executor.policy.limits
    freeze = frozen(limits.shared.freezes, incident.key, container.clock.now())
    return reasons if freeze is None else [*reasons, freeze]


async def _look(container: ApiDependencies, action: Action) -> TargetLook | None:
    """The target of the action; None where the cluster does not answer in time."""
    try:
        async with deadline(_LOOK_SECONDS, lambda: TransientError("no answer in time")):
            return await container.loop.stages.executor.gatherer.look(action)
    except AgentError:
        return None
