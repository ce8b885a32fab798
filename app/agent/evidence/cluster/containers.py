"""The changes of the newest template to the failing containers. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from app.agent.evidence.facts import (
    PodFault,
    changed_fields,
    current_pods,
    current_revision,
    older_pods,
    pod_fault,
    reference_revision,
)
from app.agent.models import Evidence
from app.agent.workload import PodView, Revision, WorkloadView

_OWN_FAULTS = frozenset({PodFault.CRASH, PodFault.OUT_OF_MEMORY})
"""Faults of a container that starts, rather than of what its pod needs."""


def untouched_failing(evidence: Evidence) -> tuple[str, ...]:
    """The failing containers, by name, of a template that changed only other containers.

    Empty if a field of the pod or of a failing container changed, or if pods of an older template are
    healthy: then only the change distinguishes the failing pods from the healthy ones.
    """
    compared = _compared(evidence)
    if compared is None or any(pod.ready for pod in older_pods(compared.workload)):
        return ()
    failing = _failing(current_pods(compared.workload), evidence)
    changed = changed_fields(compared.before, compared.current)
    if not failing or not changed or None in failing:
        return ()
    names = sorted(name for name in failing if name is not None)
    elsewhere = all(" of " in field and field.rpartition(" of ")[2] not in names for field in changed)
    return tuple(names) if elsewhere else ()


def lowered_limit(evidence: Evidence) -> str | None:
    """The container that is killed for memory under a lower limit than the version before had; else None."""
    compared = _compared(evidence)
    if compared is None:
        return None
    killed = {
        pod.failing.name
        for pod in current_pods(compared.workload)
        if pod_fault(pod, evidence.at) is PodFault.OUT_OF_MEMORY and pod.failing is not None
    }
    limits, earlier = dict(compared.current.memory_limits), dict(compared.before.memory_limits)
    lowered = (name for name in sorted(killed) if name in limits)
    return next((name for name in lowered if name not in earlier or limits[name] < earlier[name]), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Compared:
    """A workload with its newest revision and the revision that served before."""

    workload: WorkloadView
    current: Revision
    before: Revision


def _compared(evidence: Evidence) -> _Compared | None:
    """None where the cluster was not read, or one of the revisions is not known."""
    workload = evidence.workload
    current = None if workload is None else current_revision(workload)
    before = reference_revision(evidence)
    if workload is None or current is None or before is None:
        return None
    return _Compared(workload=workload, current=current, before=before)


def _failing(pods: tuple[PodView, ...], evidence: Evidence) -> set[str | None]:
    """The containers of these pods that fail by themselves; None among them where one is not known."""
    return {
        None if pod.failing is None else pod.failing.name
        for pod in pods
        if pod_fault(pod, evidence.at) in _OWN_FAULTS
    }
