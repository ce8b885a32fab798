"""The kinds of workloads: names, the objects that keep their revisions, and their changeable parts. Pure.

A kind that the agent only watches, such as an Argo Rollout, has no changeable part: the agent diagnoses its
faults and hands them to a person.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from app.agent.guardrails.target_token import PAUSED, REPLICAS, TEMPLATE
from app.agent.models import Action

DEPLOYMENT, STATEFUL_SET, DAEMON_SET, ROLLOUT = "Deployment", "StatefulSet", "DaemonSet", "Rollout"
NODE, POD, AUTOSCALER = "Node", "Pod", "HorizontalPodAutoscaler"
"""What else of a cluster an action may change."""
CLUSTER_WIDE = frozenset({NODE})
"""Kinds whose objects belong to no namespace."""
SILENCE = "Silence"
"""The agent's own silences of one service in the monitoring: named by environment and service."""
IN_MONITORING = frozenset({SILENCE})
"""Kinds of targets outside the cluster."""


def mutes(action: Action) -> bool:
    """Whether it only silences alerts: it neither helps nor harms the service, and ends with the incident."""
    return action.target is not None and action.target.kind in IN_MONITORING


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadKind:
    """One kind of workload that runs the pods of a service."""

    name: str
    parts: tuple[str, ...]
    """The parts of its specification that the agent may change (`app.agent.guardrails.target_token`)."""
    without: Mapping[str, str]
    """Why the agent cannot change each of the other parts, as a sentence about a workload of this kind."""


_NO_PAUSE = "its rollout cannot be paused"
_ITS_CONTROLLER = (
    "the agent does not change it; its own controller goes back to the stable release "
    "(kubectl argo rollouts abort, then undo)"
)

WORKLOAD_KINDS: Mapping[str, WorkloadKind] = MappingProxyType(
    {
        kind.name: kind
        for kind in (
            WorkloadKind(name=DEPLOYMENT, parts=(TEMPLATE, REPLICAS, PAUSED), without={}),
            WorkloadKind(name=STATEFUL_SET, parts=(TEMPLATE, REPLICAS), without={PAUSED: _NO_PAUSE}),
            WorkloadKind(
                name=DAEMON_SET,
                parts=(TEMPLATE,),
                without={
                    PAUSED: _NO_PAUSE,
                    REPLICAS: "it runs one pod on each node and has no replicas to set",
                },
            ),
            WorkloadKind(
                name=ROLLOUT, parts=(), without=dict.fromkeys((TEMPLATE, PAUSED, REPLICAS), _ITS_CONTROLLER)
            ),
        )
    }
)
"""By name, in the order in which they are looked for."""


def kinds_with(*parts: str) -> frozenset[str]:
    """The kinds of workloads of which the agent may change all of these parts."""
    return frozenset(name for name, kind in WORKLOAD_KINDS.items() if {*parts} <= {*kind.parts})
