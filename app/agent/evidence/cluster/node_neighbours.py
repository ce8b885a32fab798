"""Which services fail on a node alone: evidence across services that the node is at fault. Pure.

A node may report that it is ready and still break its pods. A single failing pod of one service does not
show this; failing pods of several services show it if each service is healthy on other nodes.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from app.agent.evidence.facts import PodFault, pod_fault
from app.agent.ids import ServiceKey
from app.agent.models import Evidence, NodeNeighbours
from app.agent.workload import PodView, WorkloadView

_NOT_OF_A_NODE = frozenset({PodFault.IMAGE, PodFault.CONFIGURATION, PodFault.LOST})
"""Faults caused by the specification of a pod, or reported by the cluster for the node itself."""


def only_node(pods: tuple[PodView, ...], at: datetime) -> str | None:
    """The one node that runs every unhealthy pod and no healthy one, while healthy pods run elsewhere."""
    nodes = {p.node for p in pods if pod_fault(p, at) is not None}
    node = next(iter(nodes), None)
    if len(nodes) != 1 or node is None:
        return None
    elsewhere = any(p.ready and p.node is not None and p.node != node for p in pods)
    shared = any(p.ready and p.node == node for p in pods)
    return node if elsewhere and not shared else None


def twins_elsewhere(pods: tuple[PodView, ...], at: datetime) -> bool:
    """Whether each unhealthy pod has a healthy one of the same template: the template does not explain it."""
    templates = {p.template_hash for p in pods if pod_fault(p, at) is not None}
    return templates <= {p.template_hash for p in pods if p.ready}


def neighbours_on(
    node: str, workloads: Iterable[tuple[ServiceKey, WorkloadView]], at: datetime
) -> NodeNeighbours:
    """The health of other services on the node and on other nodes."""
    failing: list[ServiceKey] = []
    healthy: list[ServiceKey] = []
    beside: list[ServiceKey] = []
    for key, workload in workloads:
        pods = workload.pods
        faults = {fault for p in pods if (fault := pod_fault(p, at)) is not None}
        alone = only_node(pods, at) == node and twins_elsewhere(pods, at)
        if alone and not faults & _NOT_OF_A_NODE:
            failing.append(key)
        elif faults:
            beside.append(key)
        elif any(p.ready and p.node == node for p in pods):
            healthy.append(key)
    return NodeNeighbours(node=node, failing=tuple(failing), healthy=tuple(healthy), beside=tuple(beside))


def failing_with(node: str, evidence: Evidence) -> tuple[ServiceKey, ...]:
    """The other services that fail only on the node; empty unless they outnumber the counter-evidence.

    Each service that is healthy on the node, or fails elsewhere, cancels one that fails on it.
    """
    found = evidence.neighbours
    if found is None or found.node != node:
        return ()
    against = max(len(found.healthy), len(found.beside))
    return found.failing if len(found.failing) + 1 > against else ()
