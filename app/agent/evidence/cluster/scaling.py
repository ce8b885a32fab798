"""A number of replicas that someone set, as a change of the service. Pure."""

from __future__ import annotations

import re

from app.agent.evidence.format import counted
from app.agent.models import ChangeKind, ConfigChange
from app.agent.workload import WorkloadView

_AUTOMATIC = re.compile(r"^(?:kube-controller-manager|keda)|autoscaler")
"""Field managers of autoscalers that the agent may not read."""


def scale_change(before: int, workload: WorkloadView, agent: str) -> ConfigChange | None:
    """The change of the replicas since the last look; None for those of an autoscaler or of the agent.

    `agent` is the agent's field manager. A change by an autoscaler follows the load and is not a cause of it.
    """
    now = workload.desired_replicas
    by = None if workload.scaled is None else workload.scaled.by
    automatic = any(one.sets_replicas for one in workload.autoscalers) or workload.served_by is not None
    if now == before or automatic or by == agent or _AUTOMATIC.search(by or ""):
        return None
    author = by or "an author that the cluster does not record"
    return ConfigChange(
        summary=f"{author} scaled it from {before} to {counted(now, 'replica')}", kind=ChangeKind.SCALE
    )
