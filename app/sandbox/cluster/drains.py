"""What a drain sees of the nodes of the simulated cluster, and the evictions that it asks for."""

from __future__ import annotations

from app.agent.guardrails.drains import NodeLoad, NodePod, NodeRoom
from app.agent.guardrails.opt_out import said
from app.agent.guardrails.workload_kinds import DEPLOYMENT, POD
from app.agent.workload import ObjectRef
from app.errors import Conflict
from app.sandbox.objects import Pod, ReplicaSet
from app.sandbox.world import World

VOLUMES, LOCAL = "volumes", "emptyDir"
"""The field of a template that gives its pods data on their node, and its value."""

_PLENTY = 1 << 40


def load_of(world: World, node: str, *, rooms: bool) -> NodeLoad:
    """A node with its pods; `NotFound` for a name that none has."""
    world.node(node)
    pods = world.api.list(Pod)
    others = [name for name in world.nodes if name != node]
    lost = tuple(name for name in others if world.surroundings.node(name).lost)
    free = []
    for name in others:
        held = sum(pod.node == name for pod in pods)
        if name not in lost and not world.surroundings.node(name).cordoned:
            most = world.surroundings.pods_per_node - held
            free.append(NodeRoom(name=name, pods=int(most), cpu_millis=_PLENTY, memory_bytes=_PLENTY))
    found = tuple(_pod(world, pod) for pod in pods if pod.node == node)
    homes = sorted({pod.ref.namespace for pod in found if pod.moves})
    opted_out = tuple(home for home in homes if said(world.namespaces.get(home, {})) is False)
    if not rooms:
        return NodeLoad(node=node, pods=found, not_ready=lost)
    return NodeLoad(node=node, pods=found, rooms=tuple(free), not_ready=lost, opted_out=opted_out)


def evict(world: World, ref: ObjectRef, uid: str, *, manager: str, dry_run: bool) -> None:
    """Delete exactly this pod; `Conflict` where a disruption budget allows it not."""
    pod = world.api.get(Pod, ref.namespace, ref.name)
    if pod.meta.uid != uid:
        raise Conflict(f"{ref} is another pod now")
    workload = _workload(world, pod)
    if (ref.namespace, workload) in world.held_pods:
        raise Conflict(f"cannot evict {ref}: it would violate the disruption budget of {workload}")
    world.api.take_away(pod, manager=manager, dry_run=dry_run)


def _pod(world: World, pod: Pod) -> NodePod:
    return NodePod(
        ref=ObjectRef(kind=POD, namespace=pod.meta.namespace, name=pod.meta.name),
        uid=pod.meta.uid,
        owner=_owner(world, pod),
        ready=pod.ready,
        local_data=dict(pod.template.pod_fields).get(VOLUMES) == LOCAL,
        opted_out=said(pod.meta.labels, pod.meta.annotations, dict(pod.template.annotations)) is False,
    )


def _owner(world: World, pod: Pod) -> str | None:
    """The kind of a pod's controller."""
    found = next((one for one in world.api.workloads() if one.meta.uid == _above(world, pod)), None)
    if found is None:
        return None
    return "ReplicaSet" if found.kind == DEPLOYMENT else found.kind


def _workload(world: World, pod: Pod) -> str:
    above = _above(world, pod)
    return next((one.meta.name for one in world.api.workloads() if one.meta.uid == above), "")


def _above(world: World, pod: Pod) -> str:
    owners = world.api.list(ReplicaSet, pod.meta.namespace)
    return next((one.owner_uid for one in owners if one.meta.uid == pod.owner_uid), "")
