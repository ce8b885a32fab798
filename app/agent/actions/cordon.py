"""Cordon: no more pods are scheduled to the node on which all failing pods run."""

from __future__ import annotations

from collections.abc import Mapping

from app.agent.actions.preconditions import first_reason, owner_refuses
from app.agent.actions.spec import (
    UNNAMED,
    ActionSpec,
    PlanLimits,
    Resolution,
    Resolved,
    StateChange,
    Unmet,
    no_pods,
)
from app.agent.evidence.facts import PodFault
from app.agent.evidence.pods import failing_node, fault_counts
from app.agent.guardrails.cordons import CORDONED, SCHEDULABLE
from app.agent.guardrails.limits import NAMESPACE
from app.agent.guardrails.target_token import CORDONED_BY, UNSCHEDULABLE
from app.agent.guardrails.workload_kinds import NODE
from app.agent.ids import JsonScalar
from app.agent.models import ActionName, Evidence, Risk
from app.agent.workload import ObjectRef, WorkloadView

_EFFECT = "no more pods are scheduled to the failing node; pods that run there stay"


def resolve(parameters: Mapping[str, JsonScalar], evidence: Evidence, limits: PlanLimits) -> Resolution:  # noqa: ARG001 - every action resolves with the same signature
    """Needs one node that holds every failing pod and no healthy one, while pods elsewhere are healthy."""
    workload = evidence.workload
    if workload is None:
        return Resolved(target=None, parameters={}, expected_effect=_EFFECT, change=UNNAMED)
    lost = None
    if fault_counts(workload.pods, evidence)[PodFault.LOST]:
        lost = "the node no longer reports to the cluster, which already schedules no pods to it"
    reason = first_reason(owner_refuses(workload), lost)
    if reason is not None:
        return Unmet(reason=reason)
    return cordon_of(failing_node(workload.pods, evidence), workload, "; pods that run there stay")


def cordon_of(node: str | None, workload: WorkloadView, then: str) -> Resolution:
    """The cordon of the node with the failing pods of a workload, and its effect on these pods, in words."""
    if node is None:
        return Unmet(reason="the failing pods of the service are not alone on one node")
    return Resolved(
        target=ObjectRef(kind=NODE, namespace="", name=node, cluster=workload.target.ref.cluster),
        parameters={NAMESPACE: workload.target.ref.namespace},
        expected_effect=f"no more pods are scheduled to node {node}{then}",
        change=StateChange(leaves=SCHEDULABLE, reaches=CORDONED),
    )


SPEC = ActionSpec(
    name=ActionName.CORDON,
    risk=Risk.MEDIUM,
    parameters=(),
    expected_effect=_EFFECT,
    undo="uncordon the node",
    resolve=resolve,
    kinds=frozenset({NODE}),
    changes=(UNSCHEDULABLE, CORDONED_BY),
    pods_taken=no_pods,
    enabled_by_default=False,
)
