"""The failure conditions of a workload at one instant, and the trigger of each condition. Pure.

A condition that ends by itself in a normal rollout, restart or rescheduling must hold for a
while before it counts; the time is taken from the view, never from a clock.
docs/conditions.md lists every condition with its time.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from enum import StrEnum

from app.agent.evidence.cluster.blockers import (
    PullFault,
    exit_words,
    missing_objects,
    mount_warning,
    obstacles,
    probe_failures,
    pull_fault,
    refusal,
)
from app.agent.evidence.facts import PodFault, initialising, pod_fault
from app.agent.evidence.format import counted
from app.agent.models import ClusterCondition, Condition, MetricSample, Signal, Trigger
from app.agent.workload import ContainerRole, PodView, WorkloadView
from app.durations import span

CONDITION_TRIGGERS = {
    Condition.CRASH_LOOP_BACK_OFF: Trigger.CRASH_LOOP,
    Condition.OOM_KILLED: Trigger.CRASH_LOOP,
    Condition.IMAGE_PULL_BACK_OFF: Trigger.DEPLOY_FAILED,
    Condition.PROGRESS_DEADLINE_EXCEEDED: Trigger.DEPLOY_FAILED,
    Condition.CREATE_CONTAINER_CONFIG_ERROR: Trigger.PODS_UNAVAILABLE,
    Condition.CREATE_CONTAINER_ERROR: Trigger.PODS_UNAVAILABLE,
    Condition.FAILED_CREATE: Trigger.PODS_UNAVAILABLE,
    Condition.FAILED_SCHEDULING: Trigger.PODS_UNAVAILABLE,
    Condition.FAILED_MOUNT: Trigger.PODS_UNAVAILABLE,
    Condition.NODE_LOST: Trigger.PODS_UNAVAILABLE,
    Condition.CONTAINER_TERMINATED: Trigger.PODS_UNAVAILABLE,
    Condition.NOT_READY: Trigger.PODS_UNAVAILABLE,
    Condition.JOB_FAILED: Trigger.BATCH_FAILED,
}

PULL_HOLDS = timedelta(seconds=90)
"""A registry that fails for 40 s is asked again within 80 s (the kubelet's back-off of 10, 20 and 40 s)."""

START_HOLDS = timedelta(seconds=30)
"""A ConfigMap or Secret is often created seconds after the workload that needs it."""

CREATE_HOLDS = timedelta(seconds=60)
"""A quota that is full during a rollout has capacity again when old pods are gone."""

SCHEDULING_HOLDS = timedelta(minutes=2)
"""A node autoscaler adds a node in about that time, and a pod that ends makes room."""

MOUNT_HOLDS = timedelta(minutes=2)
"""A volume moves from a pod that ends to its successor in that time."""

NODE_HOLDS = timedelta(seconds=30)
"""Added to the 40 s to 50 s after which the cluster itself gives a node up."""

TERMINATED_HOLDS = timedelta(seconds=60)
"""A node starts a container again within seconds, or reports CrashLoopBackOff."""

NOT_READY_AFTER = timedelta(minutes=2)
"""The least time to become ready; more where probes or the pods that serve take longer."""

_USUAL_FACTOR = 3
"""Longer than usual is longer than this many times the slowest start of the pods that serve."""

_BEYOND_PROBES = timedelta(seconds=60)


_PAUSES = frozenset({Condition.CRASH_LOOP_BACK_OFF})
"""A moment without them is not their end."""


def workload_conditions(workload: WorkloadView) -> tuple[Condition, ...]:
    """The conditions of a workload at this instant, worst first, without duplicates.

    A workload that asks for no replicas has none.
    """
    if workload.desired_replicas == 0:
        return ()
    found = [condition for pod in workload.pods for condition in pod_conditions(pod, workload)]
    if creation_refused(workload):
        found.append(Condition.FAILED_CREATE)
    if workload.progress_deadline_exceeded and not _within_probes(workload):
        found.append(Condition.PROGRESS_DEADLINE_EXCEEDED)
    present = frozenset(found)
    return tuple(condition for condition in CONDITION_TRIGGERS if condition in present)


def _within_probes(workload: WorkloadView) -> bool:
    """Whether pods still start and the probes grant them more time than the progress deadline does."""
    at, granted = workload.observed_at, timedelta(seconds=workload.start_seconds)
    starting = [pod for pod in workload.pods if not (pod.ready or pod.leftover)]
    quiet = all(pod_fault(pod, at) in (None, PodFault.NOT_READY) and pod.restarts == 0 for pod in starting)
    return bool(starting) and quiet and all(at - pod.created_at < granted for pod in starting)


def pod_conditions(pod: PodView, workload: WorkloadView) -> Iterator[Condition]:
    """The conditions of one pod; none for a replaced pod."""
    if pod.leftover:
        return
    at = workload.observed_at
    unready = at - unready_since(pod)
    fault = pod_fault(pod, at)
    match fault:
        case PodFault.LOST if unready >= NODE_HOLDS:
            yield Condition.NODE_LOST
        case PodFault.IMAGE | PodFault.REGISTRY:
            certain = pull_fault(pod) is PullFault.MISSING
            if certain or unready >= PULL_HOLDS:
                yield Condition.IMAGE_PULL_BACK_OFF
        case PodFault.CONFIGURATION if unready >= START_HOLDS:
            yield Condition.CREATE_CONTAINER_CONFIG_ERROR
        case PodFault.START if unready >= START_HOLDS:
            yield Condition.CREATE_CONTAINER_ERROR
        case PodFault.UNSCHEDULED if unready >= SCHEDULING_HOLDS:
            yield Condition.FAILED_SCHEDULING
        case PodFault.STORAGE:
            if pod.unschedulable is not None and unready >= SCHEDULING_HOLDS:
                yield Condition.FAILED_SCHEDULING
            elif pod.unschedulable is None and unready >= MOUNT_HOLDS:
                yield Condition.FAILED_MOUNT
        case PodFault.STOPPED if _ended_for(pod, at) >= TERMINATED_HOLDS:
            yield Condition.CONTAINER_TERMINATED
        case _:
            yield from _running_conditions(pod, workload, unready)


def _running_conditions(pod: PodView, workload: WorkloadView, unready: timedelta) -> Iterator[Condition]:
    """The conditions of a pod whose containers were started, or are still being created."""
    if pod.waiting_reason == "CrashLoopBackOff":
        yield Condition.CRASH_LOOP_BACK_OFF
        if pod.last_termination_reason == "OOMKilled":
            yield Condition.OOM_KILLED
    elif not pod.ready and unready >= longer_than_usual(workload):
        yield Condition.NOT_READY


def waits_until(workload: WorkloadView) -> datetime | None:
    """Until when the agent waits for a registry that does not answer; None: no pod waits for one.

    Only while nothing else is wrong: the agent does not wait for other conditions.
    """
    if workload_conditions(workload):
        return None
    at = workload.observed_at
    silent = [pod for pod in workload.pods if pod_fault(pod, at) is PodFault.REGISTRY and not pod.leftover]
    return max((unready_since(pod) + PULL_HOLDS for pod in silent), default=None)


def creation_refused(workload: WorkloadView) -> bool:
    """Whether the API server has refused to create wanted pods for `CREATE_HOLDS`, as far as it says."""
    since = workload.replica_failure_since
    held = since is None or workload.observed_at - since >= CREATE_HOLDS
    return workload.replica_failure is not None and held


def settled(workload: WorkloadView) -> bool:
    """Whether the workload has no condition and can get one only by a change, not by the passage of time."""
    if workload.desired_replicas == 0:
        return True
    ready = all(pod.ready or pod.leftover for pod in workload.pods)
    complete = workload.available_replicas >= workload.desired_replicas
    return ready and complete and workload.replica_failure is None and not workload_conditions(workload)


def unready_since(pod: PodView) -> datetime:
    """Since when a pod that is not ready has not been; its creation where the cluster does not say."""
    return max(pod.ready_changed_at or pod.created_at, pod.created_at)


def longer_than_usual(workload: WorkloadView) -> timedelta:
    """After which time without readiness a pod counts as not ready.

    At least `NOT_READY_AFTER`, three times the slowest start of the serving pods, and the time that the
    probes allow. It never exceeds half the progress deadline, unless the probes allow more.
    """
    starts = [unready_since(pod) - pod.created_at for pod in workload.pods if pod.ready and pod.restarts == 0]
    usual = _USUAL_FACTOR * max(starts, default=timedelta(0))
    latest = max(timedelta(seconds=workload.progress_deadline_seconds) / 2, NOT_READY_AFTER)
    granted = timedelta(seconds=workload.start_seconds)
    return max(NOT_READY_AFTER, min(usual, latest), granted + _BEYOND_PROBES if granted else granted)


def lasting_conditions(workload: WorkloadView, before: frozenset[Condition]) -> frozenset[Condition]:
    """The current conditions, with conditions from `before` that only pause.

    A crash loop is not over while a pod is not ready: between two crashes a container
    runs for a moment.
    """
    shown = frozenset(workload_conditions(workload))
    return shown if settled(workload) else shown | (before & _PAUSES)


def restarting(pod: PodView) -> bool:
    """Restarted and not ready: between two crashes a pod runs briefly and shows no condition."""
    return not pod.ready and pod.restarts > 0 and pod.last_termination_reason is not None


def _ended_for(pod: PodView, at: datetime) -> timedelta:
    ended = pod.failing.ended_at if pod.failing is not None else None
    return timedelta(0) if ended is None else at - ended


# ---------------------------------------------------------------- in words


def condition_words(workload: WorkloadView, condition: Condition) -> str:
    """How many pods have a condition, the message of the cluster, and whether other pods serve."""
    if condition is Condition.PROGRESS_DEADLINE_EXCEEDED:
        return f"the rollout of revision {workload.current_revision} made no progress"
    if condition is Condition.FAILED_CREATE:
        said = workload.replica_failure or "no reason given"
        return f"{refusal(said)}: {said}; {serving_words(workload)}"
    affected = [pod for pod in workload.pods if condition in pod_conditions(pod, workload)]
    reasons = dict.fromkeys(words for pod in affected if (words := pod_words(pod, workload.observed_at)))
    restarts = max((pod.restarts for pod in affected), default=0)
    present = [pod for pod in workload.pods if not pod.leftover]
    counts = f"{len(affected)} of {counted(len(present), 'pod')}"
    if restarts:
        counts += f", up to {counted(restarts, 'restart')}"
    return "; ".join([counts, *list(reasons)[:3], serving_words(workload)])


class Impact(StrEnum):
    """How much of a service is lost: the severity of its incident."""

    OUTAGE = "outage"
    """No replica serves."""
    DEGRADED = "degraded"
    """Some replicas serve: one affected replica of several is an incident of lower severity."""
    NONE = "none"


def impact_of(workload: WorkloadView) -> Impact:
    """By the available replicas; a workload with 0 desired replicas is not impaired."""
    if workload.available_replicas >= workload.desired_replicas:
        return Impact.DEGRADED if workload_conditions(workload) else Impact.NONE
    return Impact.DEGRADED if workload.available_replicas > 0 else Impact.OUTAGE


def serving_words(workload: WorkloadView) -> str:
    """The impact and what still serves: `degraded: 2 of 3 replicas serve`, `outage: no replica serves`."""
    impact = impact_of(workload)
    if impact is Impact.OUTAGE:
        return f"{impact}: no replica serves"
    counts = f"{workload.available_replicas} of {counted(workload.desired_replicas, 'replica')} serve"
    return counts if impact is Impact.NONE else f"{impact}: {counts}"


def pod_words(pod: PodView, at: datetime) -> str:
    """Why one pod does not serve, in words; empty where nothing more is known than that."""
    match pod_fault(pod, at):
        case PodFault.LOST:
            return f"node {pod.node or 'unknown'} no longer reports to the cluster"
        case PodFault.IMAGE | PodFault.REGISTRY:
            return _with_message(str(pull_fault(pod)), _said(pod))
        case PodFault.CONFIGURATION:
            missing = ", ".join(str(one) for one in missing_objects(pod))
            return f"{missing} does not exist" if missing else _with_message("configuration", _said(pod))
        case PodFault.START:
            return _with_message(f"{_container(pod)} cannot be started", _said(pod))
        case PodFault.UNSCHEDULED | PodFault.STORAGE if pod.unschedulable is not None:
            kinds = " and ".join(obstacles(pod.unschedulable))
            return _with_message(kinds, pod.unschedulable)
        case PodFault.STORAGE:
            warning = mount_warning(pod)
            return "" if warning is None else f"{warning.reason}: {warning.message}"
        case PodFault.STOPPED:
            return f"{_container(pod)} {_end_words(pod)} {span(_ended_for(pod, at))} ago, not started again"
        case PodFault.CRASH | PodFault.OUT_OF_MEMORY:
            return f"{_container(pod)} {_end_words(pod)}"
        case PodFault.NOT_READY:
            if (waited := initialising(pod, at)) is not None:
                return f"{_container(pod)} {_unfinished(pod)} for {span(waited)}, and the others wait for it"
            return "; ".join(str(one) for one in probe_failures(pod))
        case _:
            return ""


def _container(pod: PodView) -> str:
    """The failing container by role and name: an init container or a sidecar is not the service itself."""
    return "a container" if pod.failing is None else f"{pod.failing.role} {pod.failing.name}"


def _unfinished(pod: PodView) -> str:
    """A sidecar lets the next container start when it has started, another init container when it ended."""
    sidecar = pod.failing is not None and pod.failing.role is ContainerRole.SIDECAR
    return "has not started" if sidecar else "has not ended"


def _end_words(pod: PodView) -> str:
    code = pod.failing.exit_code if pod.failing is not None else None
    return exit_words(code, pod.last_termination_reason)


def _said(pod: PodView) -> str:
    """The message of the node about the failing container, else its newest event."""
    if pod.failing is not None and pod.failing.message:
        return pod.failing.message
    return next((one.message for one in pod.warnings if one.reason == "Failed"), "")


def _with_message(words: str, message: str) -> str:
    return f"{words}: {message}" if message else words


def conditions_of(signals: tuple[Signal, ...], workload: WorkloadView | None) -> tuple[Condition, ...]:
    """The cluster conditions: seen now in the workload, or reported by signals of the incident."""
    found: list[Condition] = []
    for signal in signals:
        if isinstance(signal.payload, ClusterCondition) and signal.payload.present:
            found.append(signal.payload.condition)
        elif isinstance(signal.payload, MetricSample) and signal.payload.crash_looping:
            found.append(Condition.CRASH_LOOP_BACK_OFF)
    if workload is not None:
        found.extend(workload_conditions(workload))
    return tuple(dict.fromkeys(found))
