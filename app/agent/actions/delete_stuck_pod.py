"""Delete a stuck pod: its controller makes another one in its place, on any node."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from app.agent.actions.preconditions import first_reason, owner_refuses
from app.agent.actions.spec import (
    UNNAMED,
    ActionSpec,
    Parameter,
    PlanLimits,
    Resolution,
    Resolved,
    Unmet,
    Unneeded,
    no_pods,
)
from app.agent.evidence.cluster.held_up import waited_for, why_kept
from app.agent.evidence.facts import PodFault, pod_fault
from app.agent.evidence.format import counted
from app.agent.evidence.pods import sound
from app.agent.guardrails.target_token import READY, TERMINATING, removed
from app.agent.guardrails.workload_kinds import POD
from app.agent.ids import JsonScalar
from app.agent.models import ActionName, Evidence, Risk
from app.agent.workload import PodView, WorkloadView

_HOLDS_UP = ("holds_up_change", "holds_up_rollback")
"""The second is the former name, from when the step completed only a rollback."""

_EFFECT = "the stuck pod is deleted, and its controller makes another one in its place"

STUCK_FOR = timedelta(minutes=2)
"""A younger pod, or one that became unready more recently, may still start by itself."""

_OF_THE_POD = frozenset(
    {PodFault.NOT_READY, PodFault.STORAGE, PodFault.STOPPED, PodFault.START, PodFault.CRASH}
)
"""Faults that another pod from the same template, on another node, may not have."""


def resolve(parameters: Mapping[str, JsonScalar], evidence: Evidence, limits: PlanLimits) -> Resolution:  # noqa: ARG001 - every action resolves with the same signature
    """Needs exactly one failing pod, and healthy pods with the same template.

    With `when: holds_up_change` it is the pod that blocks the template change of the previous step.
    """
    workload = evidence.workload
    if parameters.get("when") in _HOLDS_UP:
        return _of_the_replaced_revision(workload)
    if workload is None:
        return Resolved(target=None, parameters={}, expected_effect=_EFFECT, change=UNNAMED)
    failing = [pod for pod in workload.pods if pod_fault(pod, evidence.at) is not None]
    reason = first_reason(owner_refuses(workload), _not_alone(failing, workload))
    if reason is None:
        reason = _may_recover(failing[0], evidence) or _no_healthy_twin(failing[0], workload, evidence)
    if reason is not None:
        return Unmet(reason=reason)
    return _deleted(failing[0], workload)


def _of_the_replaced_revision(workload: WorkloadView | None) -> Resolution:
    """The one pod of the replaced revision that the controller of the StatefulSet waits for."""
    if workload is None or not waited_for(workload):
        return Unneeded()
    reason = first_reason(owner_refuses(workload), why_kept(workload, changed=True))
    return _deleted(waited_for(workload)[0], workload) if reason is None else Unmet(reason=reason)


def _deleted(pod: PodView, workload: WorkloadView) -> Resolved:
    return Resolved(
        target=workload.target.ref.beside(POD, pod.name),
        parameters={},
        expected_effect=f"pod {pod.name} is deleted, and its controller makes another one in its place",
        change=UNNAMED,
    )


def _not_alone(failing: list[PodView], workload: WorkloadView) -> str | None:
    """Several failing pods share a cause that a new pod does not remove."""
    if len(failing) == 1:
        return None
    found = counted(len(failing), "pod") if failing else "no pod"
    return f"{found} of {workload.target.ref} fail, and only a single stuck pod is deleted"


def _may_recover(pod: PodView, evidence: Evidence) -> str | None:
    fault = pod_fault(pod, evidence.at)
    if fault is PodFault.LOST:
        return f"pod {pod.name} is on an unreachable node and may still run there: a person must decide"
    if fault not in _OF_THE_POD:
        return f"pod {pod.name} is one of those that {fault}: another pod would fail like it"
    since = max(pod.created_at, pod.ready_changed_at or pod.created_at)
    if evidence.at - since < STUCK_FOR:
        seconds = STUCK_FOR.total_seconds()
        return f"pod {pod.name} has been failing for less than {seconds:.0f} s and may still recover"
    return None


def _no_healthy_twin(pod: PodView, workload: WorkloadView, evidence: Evidence) -> str | None:
    twins = tuple(one for one in workload.pods if one.template_hash == pod.template_hash)
    if sound(twins, evidence):
        return None
    return f"no pod with the template of {pod.name} is healthy: another pod would fail like it"


SPEC = ActionSpec(
    name=ActionName.DELETE_STUCK_POD,
    risk=Risk.MEDIUM,
    parameters=(
        Parameter(
            name="when",
            meaning="holds_up_change: only the pod that the change of the template before this step does not "
            "reach, because the controller of an ordered StatefulSet waits for it; it runs the replaced "
            "revision and was never ready. holds_up_rollback is an earlier name of the same",
            choices=_HOLDS_UP,
            required=False,
        ),
    ),
    expected_effect=_EFFECT,
    undo=None,
    resolve=resolve,
    kinds=frozenset({POD}),
    changes=(READY, TERMINATING),
    pods_taken=no_pods,  # it serves no requests
    enabled_by_default=False,
    removes=True,
    effect_shows=removed,
    no_undo_note="{target} cannot be brought back: its controller made another one.",
)
