"""Whether the newest template caused the start failure of its pods, or was only exposed to it. Pure.

A rollback fixes a failure that the template caused. It does not fix one that the template only met: the
older pods run only because they started earlier.
"""

from __future__ import annotations

from collections.abc import Iterable

from app.agent.evidence.cluster.blockers import (
    OBSTACLE_FIELDS,
    REFUSAL_FIELDS,
    missing_objects,
    obstacles,
    refusal,
)
from app.agent.evidence.facts import (
    PodFault,
    changed_fields,
    current_pods,
    current_revision,
    older_pods,
    pod_fault,
    reference_revision,
    rollout_stuck,
)
from app.agent.models import Evidence
from app.agent.workload import PodView, Revision, WorkloadView

OUTER_FAULTS = frozenset(
    {
        PodFault.CONFIGURATION,
        PodFault.IMAGE,
        PodFault.REGISTRY,
        PodFault.STORAGE,
        PodFault.UNSCHEDULED,
    }
)
"""Faults that a template can cause, or meet without a change."""

_REFERENCE_FIELDS = ("env of ", "envFrom of ", "volumes", "volumeMounts of ")


def introduced(evidence: Evidence, fault: PodFault) -> bool:
    """Whether the newest template caused this fault.

    It did not if one of its pods is ready, if older pods have the same fault, or if none of the fields that
    could cause it is known to have changed.
    """
    workload = evidence.workload
    current = current_revision(workload) if workload is not None else None
    if workload is None or current is None:
        return False
    mine = current_pods(workload)
    affected = [pod for pod in mine if pod_fault(pod, evidence.at) is fault]
    others = [pod for pod in older_pods(workload) if pod_fault(pod, evidence.at) is fault]
    if not affected or others or any(pod.ready for pod in mine):
        return False
    before = reference_revision(evidence)
    if before is None:
        return fault is PodFault.IMAGE
    match fault:
        case PodFault.IMAGE:
            return before.images != current.images
        case PodFault.REGISTRY:
            return _registries(before) != _registries(current)
        case PodFault.CONFIGURATION:
            return _brought_reference(workload, before, current, affected)
        case PodFault.STORAGE:
            return _changed(before, current, ("volumes", *_obstacle_fields(affected)))
        case _:
            return _changed(before, current, _obstacle_fields(affected))


def refusal_introduced(evidence: Evidence) -> bool:
    """Whether the API server refuses the newest template because of the template's change."""
    workload = evidence.workload
    current = current_revision(workload) if workload is not None else None
    if workload is None or current is None or workload.replica_failure is None:
        return False
    before = reference_revision(evidence)
    if before is None or any(pod.ready for pod in current_pods(workload)):
        return False
    fields = REFUSAL_FIELDS.get(refusal(workload.replica_failure))
    return rollout_stuck(workload) if fields is None else _changed(before, current, fields)


def _brought_reference(
    workload: WorkloadView, before: Revision, current: Revision, affected: Iterable[PodView]
) -> bool:
    """Whether only the newest template refers to the missing object."""
    missing = {one for pod in affected for one in missing_objects(pod)}
    if not missing or before.references is None or current.references is None:
        return rollout_stuck(workload)
    if any(one.key is not None for one in missing):
        return _changed(before, current, _REFERENCE_FIELDS)
    return any(one.reference in current.references - before.references for one in missing)


def _changed(before: Revision, current: Revision, prefixes: tuple[str, ...]) -> bool:
    """Whether a field with one of these prefixes differs."""
    return any(name.startswith(prefixes) for name in changed_fields(current, before))


def _obstacle_fields(affected: Iterable[PodView]) -> tuple[str, ...]:
    kinds = {kind for pod in affected for kind in obstacles(pod.unschedulable or "")}
    return tuple(sorted({field for kind in kinds for field in OBSTACLE_FIELDS[kind]}))


def _registries(revision: Revision) -> set[str]:
    """The registry hosts of its images."""
    return {image.partition("/")[0] if "/" in image else "" for image in revision.images}
