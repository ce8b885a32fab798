"""Raise a memory limit: containers that are killed for using too much memory may use more, within a bound."""

from __future__ import annotations

from collections.abc import Mapping

from app.agent.actions.preconditions import (
    first_reason,
    held_up_for_good,
    kind_lacks,
    owner_refuses,
    rollout_paused,
    rollout_under_way,
    would_be_reverted,
)
from app.agent.actions.spec import (
    UNNAMED,
    ActionSpec,
    Parameter,
    PlanLimits,
    Resolution,
    Resolved,
    StateChange,
    Unmet,
    rolling_pods,
)
from app.agent.evidence.facts import PodFault, current_revision, pod_fault
from app.agent.guardrails.target_token import TEMPLATE
from app.agent.guardrails.workload_kinds import kinds_with
from app.agent.ids import JsonScalar
from app.agent.models import ActionName, Evidence, Risk
from app.agent.workload import WorkloadView

MIB = 1024 * 1024
_EFFECT = "the container may use more memory"


def resolve(parameters: Mapping[str, JsonScalar], evidence: Evidence, limits: PlanLimits) -> Resolution:
    """`by_percent` becomes `memory_mib` of one `container`, at most MEMORY_LIMIT_MAX_MIB."""
    workload = evidence.workload
    if workload is None:
        return Resolved(target=None, parameters=dict(parameters), expected_effect=_EFFECT, change=UNNAMED)
    reason = first_reason(
        kind_lacks(workload, TEMPLATE),
        owner_refuses(workload),
        would_be_reverted(workload),
        held_up_for_good(workload, limits),
        _sets_resources(workload),
        rollout_paused(workload),
        rollout_under_way(workload),
    )
    if reason is not None:
        return Unmet(reason=reason)
    found = _killed(workload, evidence)
    if isinstance(found, Unmet):
        return found
    container, now = found
    by, most = parameters.get("by_percent"), limits.memory_limit_max_mib
    wanted = min(most, (now * (100 + (by if isinstance(by, int) else 0)) // 100) // MIB)
    if wanted * MIB <= now:
        return Unmet(
            reason=f"container {container} may use {now // MIB} MiB, and MEMORY_LIMIT_MAX_MIB={most} "
            "allows no more"
        )
    return Resolved(
        target=workload.target.ref,
        parameters={"container": container, "memory_mib": wanted},
        expected_effect=f"container {container} may use {wanted} MiB of memory instead of {now // MIB} MiB",
        change=StateChange(leaves=f"memory {now // MIB} MiB", reaches=f"memory {wanted} MiB"),
    )


def _sets_resources(workload: WorkloadView) -> str | None:
    vertical = next((one for one in workload.autoscalers if not one.sets_replicas), None)
    return None if vertical is None else f"{vertical} sets the resources of its pods"


def _killed(workload: WorkloadView, evidence: Evidence) -> tuple[str, int] | Unmet:
    """The one container that is killed, with its limit in bytes."""
    killed = [pod for pod in workload.pods if pod_fault(pod, evidence.at) is PodFault.OUT_OF_MEMORY]
    names = sorted({pod.failing.name for pod in killed if pod.failing is not None})
    if len(names) != 1:
        which = f"several are ({', '.join(names)})" if names else "none is"
        return Unmet(reason=f"one container must be killed for using too much memory, and {which}")
    current = current_revision(workload)
    limit = dict(current.memory_limits).get(names[0]) if current is not None else None
    if limit is None:
        return Unmet(reason=f"container {names[0]} has no memory limit: its node ran out of memory")
    return names[0], limit


SPEC = ActionSpec(
    name=ActionName.RAISE_MEMORY_LIMIT,
    risk=Risk.HIGH,
    parameters=(
        Parameter(name="by_percent", meaning="How much more memory, in percent.", minimum=10, maximum=100),
    ),
    expected_effect=_EFFECT,
    undo="restore the previous limit",
    resolve=resolve,
    kinds=kinds_with(TEMPLATE),
    changes=(TEMPLATE,),
    pods_taken=rolling_pods,
    enabled_by_default=False,
    drifts=True,
)
