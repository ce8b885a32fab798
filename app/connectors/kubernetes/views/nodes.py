"""What a drain of a node depends on, from plain objects. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from app.agent.guardrails.drains import NodePod, NodeRoom
from app.agent.guardrails.opt_out import said
from app.agent.guardrails.workload_kinds import POD
from app.agent.ids import JsonObject
from app.agent.workload import ObjectRef
from app.connectors.kubernetes.fields import (
    condition_of,
    controller,
    flag,
    mapping,
    name,
    objects,
    text,
    texts,
    uid,
)
from app.connectors.kubernetes.views.quantities import as_bytes, as_millis

_MIRROR = "kubernetes.io/config.mirror"
_KEEPS_PODS_OUT = frozenset({"NoSchedule", "NoExecute"})


def node_pod(pod: JsonObject) -> NodePod:
    """One pod of a node, with what it requests."""
    owner = controller(pod)
    cpu, memory = _requests(pod)
    return NodePod(
        ref=ObjectRef(kind=POD, namespace=text(pod, "metadata", "namespace") or "", name=name(pod)),
        uid=uid(pod),
        owner=owner[0] if owner is not None else None,
        ready=text(condition_of(pod, "Ready"), "status") == "True",
        mirror=_MIRROR in texts(pod, "metadata", "annotations"),
        ended=text(pod, "status", "phase") in ("Succeeded", "Failed"),
        terminating=text(pod, "metadata", "deletionTimestamp") is not None,
        local_data=any("emptyDir" in volume for volume in objects(pod, "spec", "volumes")),
        opted_out=said(texts(pod, "metadata", "labels"), texts(pod, "metadata", "annotations")) is False,
        cpu_millis=cpu,
        memory_bytes=memory,
    )


def takes_pods(node: JsonObject) -> bool:
    """Whether pods without special tolerations may be scheduled to a node."""
    taints = {text(taint, "effect") for taint in objects(node, "spec", "taints")}
    return not flag(node, "spec", "unschedulable") and not taints & _KEEPS_PODS_OUT


def is_ready(node: JsonObject) -> bool:
    """Whether a node reports to the cluster and is ready."""
    return text(condition_of(node, "Ready"), "status") == "True"


def room_of(node: JsonObject, pods: Iterable[NodePod]) -> NodeRoom:
    """What a node has left beside its pods."""
    allocatable = mapping(node, "status", "allocatable")
    held = [pod for pod in pods if not pod.ended]
    return NodeRoom(
        name=name(node),
        pods=(as_millis(text(allocatable, "pods")) or 0) // 1000 - len(held),
        cpu_millis=(as_millis(text(allocatable, "cpu")) or 0) - sum(pod.cpu_millis for pod in held),
        memory_bytes=(as_bytes(text(allocatable, "memory")) or 0) - sum(pod.memory_bytes for pod in held),
    )


def _requests(pod: JsonObject) -> tuple[int, int]:
    """CPU in thousandths of a core and memory in bytes, of all containers that run together."""
    spec = mapping(pod, "spec")
    asked = [mapping(one, "resources", "requests") for one in objects(spec, "containers")]
    asked += [
        mapping(one, "resources", "requests")
        for one in objects(spec, "initContainers")
        if text(one, "restartPolicy") == "Always"
    ]
    cpu = sum(as_millis(text(one, "cpu")) or 0 for one in asked)
    return cpu, sum(as_bytes(text(one, "memory")) or 0 for one in asked)
