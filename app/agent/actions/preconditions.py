"""Preconditions of a workload for planning an action.

Each check returns the reason it fails, or None. Actions combine them; policy and the
cluster's own preconditions are checked later in addition.
"""

from __future__ import annotations

from app.agent.actions.spec import PlanLimits
from app.agent.evidence.cluster.held_up import delete_command, waited_for, why_kept
from app.agent.evidence.facts import PodFault, older_pods, pod_fault
from app.agent.guardrails.target_token import TEMPLATE
from app.agent.guardrails.workload_kinds import WORKLOAD_KINDS
from app.agent.models import ActionName, Evidence
from app.agent.workload import RolloutProgress, WorkloadView

_FROM_GIT = frozenset({"argocd", "flux", "Config Sync", "Fleet", "kapp-controller"})
"""Owners that take the specification from a repository."""


def owner_refuses(workload: WorkloadView) -> str | None:
    """The workload opts out by annotation."""
    return f"{workload.target.ref} is opted out by its owners" if workload.opted_out else None


def kind_refuses(workload: WorkloadView, part: str) -> str | None:
    """Workloads of this kind, or with this update strategy, do not take the change now."""
    return kind_lacks(workload, part) or held_up(workload)


def kind_lacks(workload: WorkloadView, part: str) -> str | None:
    """Workloads of this kind, or with this update strategy, never take the change."""
    ref = workload.target.ref
    why = WORKLOAD_KINDS[ref.kind].without.get(part) if ref.kind in WORKLOAD_KINDS else None
    if why is not None:
        return f"{ref}: {why}"
    if part == TEMPLATE and workload.replaced_by_hand:
        return (
            f"{ref} takes a new template only when someone deletes its pods (update strategy OnDelete): "
            "a person must do this"
        )
    return None


def held_up(workload: WorkloadView, why: str | None = None) -> str | None:
    """The controller waits for a pod, so that the change would not take effect; `why` is added."""
    waiting = waited_for(workload)
    if not waiting:
        return None
    names = ", ".join(pod.name for pod in waiting)
    return (
        f"{workload.target.ref} changes its pods one after another, and its controller waits for "
        f"{names} to be ready before it changes any: a person must delete that pod after the change"
        f"{'' if why is None else f' ({why})'}: {delete_command(workload)}"
    )


def held_up_for_good(workload: WorkloadView, limits: PlanLimits) -> str | None:
    """Why the pod that blocks the rollout stays after a change of the template.

    None if no pod blocks it, or if `delete_stuck_pod` deletes that pod in the next step.
    """
    if workload.application is not None:
        return held_up(workload, "a GitOps controller rolls it back")
    if ActionName.DELETE_STUCK_POD not in limits.optional:
        return held_up(workload, "delete_stuck_pod is not among ENABLED_ACTIONS")
    why = why_kept(workload)
    return None if why is None else held_up(workload, why)


def would_be_reverted(workload: WorkloadView) -> str | None:
    """Another controller owns the specification and reverts changes made in the cluster."""
    owner = workload.managed_by
    if owner is None:
        return None
    instead = "change it in Git" if owner in _FROM_GIT else f"act on {owner} instead"
    return (
        f"{workload.target.ref} is managed by {owner}, which would revert a change "
        f"made in the cluster: {instead}"
    )


def released_by_tool(workload: WorkloadView) -> str | None:
    """The release that wrote the workload, where no controller watches it: a change is drift to it."""
    return workload.released_by if workload.managed_by is None else None


def owner_rolls_out(workload: WorkloadView) -> str | None:
    """An object of another controller runs the pods, and takes a restart for a new release or undoes it."""
    owner = workload.managed_by
    if owner is None or owner in _FROM_GIT:
        return None
    return f"{workload.target.ref} is managed by {owner}: act on {owner} instead"


def replicas_held(workload: WorkloadView) -> str | None:
    """An autoscaler sets the replicas: another number would be overridden within seconds."""
    scaler = next((one for one in workload.autoscalers if one.sets_replicas), None)
    if scaler is None:
        return None
    held = (
        f"{scaler} sets the replicas of {workload.target.ref} between {scaler.minimum} and {scaler.maximum}"
    )
    if scaler.at_maximum:
        return f"{held} and is at its maximum: only a higher maximum adds replicas"
    return f"{held} and would override another number"


def rollout_of(workload: WorkloadView) -> RolloutProgress | str:
    """How far the update of an Argo Rollout has come; for another kind of workload, why that is unknown."""
    return workload.progress or f"{workload.target.ref} is not an Argo Rollout"


def rollout_paused(workload: WorkloadView) -> str | None:
    """A paused workload takes a new template without rolling it out."""
    if not workload.paused:
        return None
    return f"the rollout of {workload.target.ref} is paused; resume it first"


def rollout_under_way(workload: WorkloadView) -> str | None:
    """Pods of two templates run at once: a restart would remove the older ones."""
    if not older_pods(workload):
        return None
    return f"a rollout of {workload.target.ref} is in progress: a restart would remove serving pods"


def pods_cannot_start(workload: WorkloadView, evidence: Evidence) -> str | None:
    """New pods would fail like the existing ones."""
    stuck = [
        p
        for p in workload.pods
        if pod_fault(p, evidence.at) not in (None, PodFault.NOT_READY, PodFault.OUT_OF_MEMORY, PodFault.LOST)
    ]
    if not stuck:
        return None
    return f"{len(stuck)} of {len(workload.pods)} pods of {workload.target.ref} fail: more would fail too"


def first_reason(*reasons: str | None) -> str | None:
    """The first check that failed."""
    return next((r for r in reasons if r is not None), None)
