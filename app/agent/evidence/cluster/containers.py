"""What the newest template changed about the containers that fail. Pure."""

from __future__ import annotations

from app.agent.evidence.facts import (
    PodFault,
    changed_fields,
    current_pods,
    current_revision,
    older_pods,
    reference_revision,
    trouble,
)
from app.agent.models import Evidence
from app.agent.workload import PodView

_OWN_FAULTS = frozenset({PodFault.CRASH, PodFault.OUT_OF_MEMORY})
"""Faults of a container that starts, rather than of what its pod needs."""


def untouched_failing(evidence: Evidence) -> tuple[str, ...]:
    """The failing containers, by name, of a template that changed only other containers.

    Empty where a field of the pod or of a failing container changed, or where pods of an
    older template are well: then the change still is what differs.
    """
    workload = evidence.workload
    current = None if workload is None else current_revision(workload)
    before = reference_revision(evidence)
    if workload is None or current is None or before is None:
        return ()
    if any(pod.ready for pod in older_pods(workload)):
        return ()
    failing = _failing(current_pods(workload), evidence)
    changed = changed_fields(before, current)
    if not failing or not changed or None in failing:
        return ()
    names = sorted(name for name in failing if name is not None)
    elsewhere = all(" of " in field and field.rpartition(" of ")[2] not in names for field in changed)
    return tuple(names) if elsewhere else ()


def lowered_limit(evidence: Evidence) -> str | None:
    """The container that is killed for memory under a lower limit than the version before had; else None."""
    workload = evidence.workload
    current = None if workload is None else current_revision(workload)
    before = reference_revision(evidence)
    if workload is None or current is None or before is None:
        return None
    killed = {
        pod.failing.name
        for pod in current_pods(workload)
        if trouble(pod, evidence.at) is PodFault.OUT_OF_MEMORY and pod.failing is not None
    }
    limits, earlier = dict(current.memory_limits), dict(before.memory_limits)
    lowered = (name for name in sorted(killed) if name in limits)
    return next((name for name in lowered if name not in earlier or limits[name] < earlier[name]), None)


def _failing(pods: tuple[PodView, ...], evidence: Evidence) -> set[str | None]:
    """The containers of these pods that fail by themselves; None among them where one is not known."""
    return {
        None if pod.failing is None else pod.failing.name
        for pod in pods
        if trouble(pod, evidence.at) in _OWN_FAULTS
    }
