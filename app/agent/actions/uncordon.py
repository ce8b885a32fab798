"""Uncordon: pods are scheduled again to a node that the agent itself cordoned."""

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
from app.agent.guardrails.cordons import CORDONED, SCHEDULABLE
from app.agent.guardrails.limits import NAMESPACE
from app.agent.guardrails.target_token import CORDONED_BY, UNSCHEDULABLE
from app.agent.guardrails.workload_kinds import NODE
from app.agent.ids import JsonScalar
from app.agent.models import ActionName, Evidence, Risk
from app.agent.workload import ObjectRef

_EFFECT = "pods are scheduled again to a node that the agent cordoned"


def resolve(parameters: Mapping[str, JsonScalar], evidence: Evidence, limits: PlanLimits) -> Resolution:  # noqa: ARG001 - every action resolves with the same signature
    """Needs pods without a place and one node that the agent cordoned; a person's cordon stays."""
    workload = evidence.workload
    if workload is None:
        return Resolved(target=None, parameters={}, expected_effect=_EFFECT, change=UNNAMED)
    placed = None
    if not any(pod.unschedulable is not None for pod in workload.pods):
        placed = f"every pod of {workload.target.ref} has a node"
    none = None if workload.own_cordons else "the agent cordoned no node"
    reason = first_reason(owner_refuses(workload), placed, none)
    if reason is not None:
        return Unmet(reason=reason)
    if len(workload.own_cordons) > 1:
        names = ", ".join(workload.own_cordons)
        return Unmet(reason=f"the agent cordoned several nodes ({names}): a person must choose")
    [node] = workload.own_cordons
    return Resolved(
        target=ObjectRef(kind=NODE, namespace="", name=node, cluster=workload.target.ref.cluster),
        parameters={NAMESPACE: workload.target.ref.namespace},
        expected_effect=f"pods are scheduled again to node {node}, which the agent cordoned",
        change=StateChange(leaves=CORDONED, reaches=SCHEDULABLE),
    )


SPEC = ActionSpec(
    name=ActionName.UNCORDON,
    risk=Risk.MEDIUM,
    parameters=(),
    expected_effect=_EFFECT,
    undo="cordon the node again",
    resolve=resolve,
    kinds=frozenset({NODE}),
    changes=(UNSCHEDULABLE, CORDONED_BY),
    pods_taken=no_pods,
    enabled_by_default=False,
)
