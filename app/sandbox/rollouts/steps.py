"""Which pods the controller of a StatefulSet or DaemonSet makes and deletes next. Pure.

The rules are those of the real controllers as far as the agent can notice a difference.
A StatefulSet replaces the pods from the highest ordinal down, and waits for each to be
ready. One with `podManagementPolicy: OrderedReady` does nothing at all while a pod is
not ready: a template that is put back does not reach the pod that it failed on. A
DaemonSet replaces pods that are not ready first, and one that is ready only while all
others are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from app.sandbox.objects import DaemonSet, Pod, StatefulSet


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPod:
    """A pod to be made."""

    name: str
    """Its name, or what it begins with where `node` is set."""
    node: str | None = None
    """The only node that may take it; None: any."""
    updated: bool = True
    """From the newest template, not from that of the last complete rollout."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutStep:
    """What a controller does at once."""

    make: tuple[NewPod, ...] = ()
    delete: tuple[Pod, ...] = ()


NOTHING = RolloutStep()


def next_step(workload: StatefulSet, pods: Sequence[Pod], newest: str) -> RolloutStep:
    """The next step; `newest` is the uid of the revision of the present template."""
    if isinstance(workload, DaemonSet):
        return _of_nodes(workload, pods, newest)
    return _of_ordinals(workload, {int(pod.meta.name.rpartition("-")[2]): pod for pod in pods}, newest)


def _of_ordinals(workload: StatefulSet, pods: Mapping[int, Pod], newest: str) -> RolloutStep:
    wanted = range(workload.replicas)
    missing = [_place(workload, number) for number in wanted if number not in pods]
    if workload.ordered:
        first = next((n for n in wanted if n not in pods or not pods[n].ready), None)
        if first is not None:
            return NOTHING if first in pods else RolloutStep(make=(_place(workload, first),))
    elif missing:
        return RolloutStep(make=tuple(missing))
    spare = sorted((number for number in pods if number >= workload.replicas), reverse=True)
    if spare:
        return RolloutStep(delete=tuple(pods[n] for n in (spare[:1] if workload.ordered else spare)))
    if workload.on_delete:
        return NOTHING
    for number in reversed(wanted[workload.partition :]):
        if pods[number].owner_uid != newest:
            return RolloutStep(delete=(pods[number],))
        if not pods[number].ready:
            return NOTHING
    return NOTHING


def _place(workload: StatefulSet, number: int) -> NewPod:
    kept = not workload.on_delete and number < workload.partition
    return NewPod(name=f"{workload.meta.name}-{number}", updated=not kept)


def _of_nodes(workload: DaemonSet, pods: Sequence[Pod], newest: str) -> RolloutStep:
    there = {pod.bound_to for pod in pods}
    missing = [node for node in workload.nodes if node not in there]
    make = tuple(NewPod(name=workload.meta.name, node=node) for node in missing)
    if workload.on_delete:
        return RolloutStep(make=make)
    old = [pod for pod in pods if pod.owner_uid != newest]
    broken = [pod for pod in old if not pod.ready]
    starting = len(make) + len(broken) + sum(not pod.ready for pod in pods if pod.owner_uid == newest)
    serving = [pod for pod in old if pod.ready][: max(0, 1 - starting)]
    return RolloutStep(make=make, delete=(*broken, *serving))
