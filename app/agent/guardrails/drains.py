"""Which pods of a node a drain evicts, and why a node must not be drained. Pure (promise 4).

Everything is counted in the cluster, before the decision and again before the cordon. Pods
and the readiness of nodes are read before each eviction: a pod that a person must decide
on, or another node that fails, stops a drain halfway.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from app.agent.guardrails.workload_kinds import DAEMON_SET, NODE, POD
from app.agent.ids import JsonScalar
from app.agent.models import Action, ActionName
from app.agent.workload import ObjectRef
from app.lists import some_of

MOST_EVICTIONS = 110
"""The maximum number of pods that one drain may evict: the default capacity of a node."""

_MOST_NAMED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePod:
    """One pod of a node, as far as a drain depends on it."""

    ref: ObjectRef
    uid: str
    owner: str | None
    """The kind of its controller; None for a pod that no controller would recreate."""
    ready: bool = False
    mirror: bool = False
    """It is run by the node itself, from a file."""
    ended: bool = False
    """Its containers have ended and are not restarted."""
    terminating: bool = False
    """Its deletion was requested."""
    local_data: bool = False
    """It has data on the node (`emptyDir`), which an eviction deletes."""
    opted_out: bool = False
    """Its owners keep the agent off it."""
    cpu_millis: int = 0
    """Its CPU request, in thousandths of a core."""
    memory_bytes: int = 0

    @property
    def stays(self) -> bool:
        """A drain does not evict it: it belongs to the node."""
        return self.mirror or self.owner == DAEMON_SET

    @property
    def moves(self) -> bool:
        """A drain has to evict it, and it needs room elsewhere."""
        return not (self.stays or self.ended or self.terminating)

    @property
    def obstacle(self) -> str | None:
        """Why only a person may evict it; None if the agent may."""
        if not self.moves:
            return None
        if self.owner is None:
            return "no controller would recreate it"
        if self.opted_out:
            return "it opts out of the agent"
        return "its local data would be deleted" if self.local_data else None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRoom:
    """The free capacity of another schedulable node."""

    name: str
    pods: int
    cpu_millis: int
    memory_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeLoad:
    """A node with its pods, and the free capacity of the other nodes."""

    node: str
    pods: tuple[NodePod, ...] = ()
    rooms: tuple[NodeRoom, ...] | None = None
    """Of the other nodes that are ready and take pods; None where it was not asked for."""
    not_ready: tuple[str, ...] = ()
    """The other nodes that are not ready."""
    opted_out: tuple[str, ...] = ()
    """The namespaces of its pods that keep the agent off."""
    unread: str | None = None
    """Why pods or nodes could not be read; None if they were."""

    @property
    def to_evict(self) -> tuple[NodePod, ...]:
        """The pods still to be evicted, serving pods last."""
        return tuple(sorted((p for p in self.pods if p.moves), key=lambda p: (p.ready, str(p.ref))))


def drains_node(action: Action) -> bool:
    """Whether the action evicts the pods of a node, one step after the other."""
    return action.name is ActionName.DRAIN_NODE and action.target is not None and action.target.kind == NODE


def cannot_drain(action: Action, load: NodeLoad | None) -> tuple[str, ...]:
    """Why the node must not be drained, or no further; empty for any other action."""
    if not drains_node(action):
        return ()
    if load is None or load.unread is not None:
        why = "no cluster connected" if load is None else load.unread
        return (f"the pods of the node cannot be read: {why}",)
    reasons = []
    held = [f"{pod.ref} ({pod.obstacle})" for pod in load.pods if pod.obstacle is not None]
    if held:
        reasons.append(f"a person must decide about {_named(held)}")
    moving = load.to_evict
    if len(moving) > MOST_EVICTIONS:
        reasons.append(f"{len(moving)} pods would be evicted, more than the limit of {MOST_EVICTIONS}")
    if load.opted_out:
        reasons.append(f"some of its pods are in namespaces that opt out: {_named(load.opted_out)}")
    if load.not_ready:
        reasons.append(f"another node is not ready either: {_named(load.not_ready)}")
    unplaceable = () if load.rooms is None else without_room(moving, load.rooms)
    if unplaceable:
        reasons.append(f"the other nodes have no room for {_named([str(pod.ref) for pod in unplaceable])}")
    return tuple(reasons)


def without_room(pods: Iterable[NodePod], rooms: Iterable[NodeRoom]) -> tuple[NodePod, ...]:
    """The pods that fit on no other node together with the others, the largest placed first."""
    left = {room.name: [room.pods, room.cpu_millis, room.memory_bytes] for room in rooms}
    unplaceable = []
    for pod in sorted(pods, key=lambda p: (p.memory_bytes, p.cpu_millis), reverse=True):
        wants = (1, pod.cpu_millis, pod.memory_bytes)
        fits = [free for free in left.values() if all(a >= b for a, b in zip(free, wants, strict=True))]
        if not fits:
            unplaceable.append(pod)
            continue
        widest = max(fits)
        widest[:] = [a - b for a, b in zip(widest, wants, strict=True)]
    return tuple(unplaceable)


def eviction_of(action: Action, pod: NodePod) -> Action:
    """The step of a drain that evicts one pod."""
    parameters: dict[str, JsonScalar] = {"node": action.target.name if action.target is not None else ""}
    return Action(
        name=action.name,
        risk=action.risk,
        target=pod.ref,
        parameters=parameters,
        expected_effect=f"{pod.ref} is evicted",
        undo=None,
    )


def is_eviction(action: Action) -> bool:
    """Whether the action is one step of a drain: the eviction of a pod."""
    return action.name is ActionName.DRAIN_NODE and action.target is not None and action.target.kind == POD


def _named(names: Iterable[str]) -> str:
    return some_of(tuple(names), _MOST_NAMED)
