"""Drain a node: cordon it, then evict its pods one by one."""

from __future__ import annotations

from collections.abc import Mapping

from app.agent.actions.cordon import cordon_of
from app.agent.actions.preconditions import first_reason, owner_refuses
from app.agent.actions.spec import (
    UNNAMED,
    ActionSpec,
    PlanLimits,
    Resolution,
    Resolved,
    Unmet,
    no_pods,
)
from app.agent.evidence.pods import failing_node, lost_node
from app.agent.guardrails.target_token import CORDONED_BY, UNSCHEDULABLE
from app.agent.guardrails.workload_kinds import NODE, POD
from app.agent.ids import JsonScalar
from app.agent.models import ActionName, Evidence, Risk

_EFFECT = "no more pods are scheduled to the failing node, and those that run there are evicted one by one"


def resolve(parameters: Mapping[str, JsonScalar], evidence: Evidence, limits: PlanLimits) -> Resolution:  # noqa: ARG001 - every action resolves with the same signature
    """Needs one node that is lost or holds every failing pod, while pods on other nodes are healthy."""
    workload = evidence.workload
    if workload is None:
        return Resolved(target=None, parameters={}, expected_effect=_EFFECT, change=UNNAMED)
    reason = first_reason(owner_refuses(workload))
    if reason is not None:
        return Unmet(reason=reason)
    node = lost_node(workload.pods, evidence) or failing_node(workload.pods, evidence)
    return cordon_of(node, workload, ", and those that run there are evicted one by one")


SPEC = ActionSpec(
    name=ActionName.DRAIN_NODE,
    risk=Risk.HIGH,
    parameters=(),
    expected_effect=_EFFECT,
    undo="uncordon the node; evicted pods stay where they are",
    resolve=resolve,
    kinds=frozenset({NODE, POD}),
    changes=(UNSCHEDULABLE, CORDONED_BY),
    pods_taken=no_pods,  # the API server counts each eviction against the disruption budgets
    enabled_by_default=False,
)
