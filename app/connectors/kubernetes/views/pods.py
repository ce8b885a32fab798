"""One pod as diagnosis and verification see it. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from app.agent.ids import JsonObject
from app.agent.workload import ContainerRole, FailingContainer, PodView, WarningView
from app.connectors.kubernetes.fields import (
    condition_of,
    created_at,
    flag,
    mapping,
    moment,
    name,
    number,
    objects,
    text,
    uid,
)
from app.connectors.kubernetes.releases.migrations import migrates
from app.connectors.kubernetes.views.events import sentence

_NORMAL_WAITING = frozenset({"ContainerCreating", "PodInitializing"})
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_OUT_OF_MEMORY, _KILLED = "OOMKilled", 137
_OWN_REASONS = frozenset({"ContainersNotReady", "ReadinessGatesNotReady", "PodCompleted", "PodFailed"})
"""Reasons that a node gives for a pod that is not ready; the node controller gives none of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Container:
    """One container's status with its role."""

    status: JsonObject
    role: ContainerRole
    migrates: bool = False
    """By its specification."""

    @property
    def failing(self) -> int:
        """2: kept from running; 1: not ready; 0: ready, or an init container that ended with 0."""
        waiting = text(self.status, "state", "waiting", "reason")
        if waiting is not None and waiting not in _NORMAL_WAITING:
            return 2
        return 0 if self.done or flag(self.status, "ready") else 1

    @property
    def done(self) -> bool:
        """An init container that ended with 0."""
        return self.role is ContainerRole.INIT and number(self.status, "state", "terminated", "exitCode") == 0


def pod_view(pod: JsonObject, template_hash: str | None, warnings: tuple[WarningView, ...]) -> PodView:
    """One pod of the revision with `template_hash`; `warnings` are its own events."""
    containers = tuple(_containers(pod))
    waiting = [reason for one in containers if (reason := text(one.status, "state", "waiting", "reason"))]
    waiting.sort(key=lambda reason: reason in _NORMAL_WAITING)
    ready = condition_of(pod, "Ready")
    scheduled = condition_of(pod, "PodScheduled")
    unschedulable = text(scheduled, "status") == "False" and text(scheduled, "reason") == "Unschedulable"
    return PodView(
        name=name(pod),
        uid=uid(pod),
        node=text(pod, "spec", "nodeName"),
        phase=text(pod, "status", "phase") or "Unknown",
        ready=text(ready, "status") == "True",
        restarts=sum(number(one.status, "restartCount") or 0 for one in containers),
        waiting_reason=waiting[0] if waiting else None,
        last_termination_reason=_last_termination(containers),
        template_hash=template_hash,
        created_at=created_at(pod),
        image_digests=_image_digests(pod),
        failing=_failing_container(containers),
        ready_changed_at=moment(ready, "lastTransitionTime"),
        unschedulable=sentence(text(scheduled, "message") or "no node fits") if unschedulable else None,
        node_lost=_node_lost(pod, ready, containers),
        warnings=warnings,
        evicted=_evicted(pod),
        migrated=tuple(text(one.status, "name") or "?" for one in containers if one.migrates and one.done),
        ends_by=moment(pod, "metadata", "deletionTimestamp"),
        containers=tuple(
            named
            for one in containers
            if one.role is ContainerRole.MAIN and (named := text(one.status, "name")) is not None
        ),
    )


def _evicted(pod: JsonObject) -> str | None:
    """The node's reason for an eviction, such as too little room on its disk."""
    if text(pod, "status", "reason") != "Evicted":
        return None
    return sentence(text(pod, "status", "message") or "no reason given")


def _containers(pod: JsonObject) -> Iterator[_Container]:
    """Every container that has a status, init containers and sidecars first."""
    init = {text(item, "name"): item for item in objects(pod, "spec", "initContainers")}
    for status in objects(pod, "status", "initContainerStatuses"):
        item = init.get(text(status, "name"), {})
        if text(item, "restartPolicy") == "Always":
            yield _Container(status=status, role=ContainerRole.SIDECAR)
        else:
            yield _Container(status=status, role=ContainerRole.INIT, migrates=migrates(item))
    for status in objects(pod, "status", "containerStatuses"):
        yield _Container(status=status, role=ContainerRole.MAIN)


def _failing_container(containers: Sequence[_Container]) -> FailingContainer | None:
    """The first container that is kept from running, else the first that is not ready."""
    worst = max((one.failing for one in containers), default=0)
    found = next((one for one in containers if worst and one.failing == worst), None)
    if found is None:
        return None
    ended = mapping(found.status, "state", "terminated")
    last = ended or mapping(found.status, "lastState", "terminated")
    return FailingContainer(
        name=text(found.status, "name") or "?",
        role=found.role,
        message=sentence(text(found.status, "state", "waiting", "message") or ""),
        exit_code=number(last, "exitCode"),
        last_ended_at=moment(last, "finishedAt"),
        ended_at=moment(ended, "finishedAt"),
        running_since=moment(found.status, "state", "running", "startedAt"),
        migrates=found.migrates,
    )


def _node_lost(pod: JsonObject, ready: JsonObject, containers: Sequence[_Container]) -> bool:
    """Whether the node controller, and not the node, wrote how the pod is.

    Its marks: the reason NodeLost, readiness that is unknown, or a pod that is not ready
    while its node last reported every container as ready.
    """
    if text(pod, "status", "reason") == "NodeLost" or text(ready, "status") == "Unknown":
        return True
    if text(ready, "status") != "False" or text(ready, "reason") in _OWN_REASONS:
        return False
    return bool(containers) and all(one.failing == 0 for one in containers)


def _image_digests(pod: JsonObject) -> tuple[str, ...]:
    """What the tags of its images meant when the node pulled them, by container."""
    found = set()
    for item in objects(pod, "status", "containerStatuses"):
        container, digest = text(item, "name"), _DIGEST.search(text(item, "imageID") or "")
        if container is not None and digest is not None:
            found.add(f"{container}={digest[0]}")
    return tuple(sorted(found))


def _last_termination(containers: Sequence[_Container]) -> str | None:
    """Why a container of the pod ended last: of those that fail now, where some do. A clean end is none."""
    worst = max((one.failing for one in containers), default=0)
    ends: list[tuple[str, str]] = []
    for one in containers:
        for state in ("state", "lastState"):
            ended = mapping(one.status, state, "terminated")
            reason = _reason_of_end(ended)
            if reason is not None and one.failing == worst:
                ends.append((text(ended, "finishedAt") or "", reason))
    return max(ends)[1] if ends else None


def _reason_of_end(ended: JsonObject) -> str | None:
    """Why a container ended; runtimes also say `OOMKilled` of one that ended with another code.

    Only the kernel's kill (137) means out of memory. An end with 0 is clean.
    """
    reason, code = text(ended, "reason"), number(ended, "exitCode")
    if reason is None or reason == "Completed" or code == 0:
        return None
    return "Error" if reason == _OUT_OF_MEMORY and code not in (None, _KILLED) else reason
