"""The failure conditions of a workload at one instant, and the trigger of each condition. Pure."""

from __future__ import annotations

from app.agent.models import Condition, Trigger
from app.agent.workload import PodView, WorkloadView

CONDITION_TRIGGERS = {
    Condition.CRASH_LOOP_BACK_OFF: Trigger.CRASH_LOOP,
    Condition.OOM_KILLED: Trigger.CRASH_LOOP,
    Condition.IMAGE_PULL_BACK_OFF: Trigger.DEPLOY_FAILED,
    Condition.PROGRESS_DEADLINE_EXCEEDED: Trigger.DEPLOY_FAILED,
}


def workload_conditions(workload: WorkloadView) -> tuple[Condition, ...]:
    """The conditions of a workload at this instant, worst first, without duplicates."""
    found: list[Condition] = []
    for pod in workload.pods:
        if pod.waiting_reason == "CrashLoopBackOff":
            found.append(Condition.CRASH_LOOP_BACK_OFF)
            if pod.last_termination_reason == "OOMKilled":
                found.append(Condition.OOM_KILLED)
        elif pod.waiting_reason in ("ImagePullBackOff", "ErrImagePull", "InvalidImageName"):
            found.append(Condition.IMAGE_PULL_BACK_OFF)
    if workload.progress_deadline_exceeded:
        found.append(Condition.PROGRESS_DEADLINE_EXCEEDED)
    return tuple(dict.fromkeys(found))


def restarting(pod: PodView) -> bool:
    """Restarted and not ready: between two crashes a pod runs briefly and shows no condition."""
    return not pod.ready and pod.restarts > 0 and pod.last_termination_reason is not None
