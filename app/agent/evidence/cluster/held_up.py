"""The pod that blocks a change of the template of a StatefulSet that replaces its pods in order. Pure.

The controller of a StatefulSet with `podManagementPolicy: OrderedReady` replaces no pod
while one is not ready. A template that is put back does not reach the pod that its
release broke: a change of the template takes effect only when that pod is deleted as well.
"""

from __future__ import annotations

from datetime import timedelta

from app.agent.evidence.facts import current_revision
from app.agent.workload import PodView, WorkloadView

FIRST_REPORT = timedelta(seconds=10)
"""A node reports a new pod as not ready within this time; a later change means that it was ready."""


def waited_for(workload: WorkloadView) -> tuple[PodView, ...]:
    """The pods, by name, that the controller waits for before it replaces or makes any."""
    if not workload.one_by_one:
        return ()
    waiting = (pod for pod in workload.pods if not (pod.ready or pod.leftover))
    return tuple(sorted(waiting, key=lambda pod: pod.name))


def why_kept(workload: WorkloadView, *, changed: bool = False) -> str | None:
    """Why no pod is deleted after a change of the template; None if exactly one may be deleted.

    That pod is the only one that the controller waits for, it was never ready, and it runs the revision
    that the change replaces. `changed`: the change may have taken place, so that revision may be the one
    before the current one.
    """
    waiting = waited_for(workload)
    names = ", ".join(pod.name for pod in waiting)
    if len(waiting) != 1:
        return f"its controller waits for {names}" if waiting else "its controller waits for no pod"
    [pod] = waiting
    if pod.node_lost:
        return f"{names} is on an unreachable node and may still run there"
    if pod.ends_by is not None:
        return f"{names} is being deleted"
    if pod.ready_changed_at is not None and pod.ready_changed_at - pod.created_at > FIRST_REPORT:
        return f"{names} was ready before"
    current = current_revision(workload)
    number = 0 if current is None else current.number
    left = [current, *[one for one in workload.revisions if one.number < number][: int(changed)]]
    if not pod.uid or pod.template_hash not in {one.template_hash for one in left if one is not None}:
        return f"{names} does not run the revision that is replaced"
    return None


def delete_command(workload: WorkloadView) -> str:
    """The kubectl line with which a person deletes the pods that the controller waits for."""
    names = " ".join(pod.name for pod in waited_for(workload))
    return f"kubectl -n {workload.target.ref.namespace} delete pod {names}"
