"""Whether an undo restored the service: judged by running replicas, not only by the specification.

Pure; called by `app.agent.soak`, which observes until the result is known (promise 10).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from app.agent.models import Intent, Verification
from app.agent.workload import WorkloadView


@dataclass(frozen=True, slots=True, kw_only=True)
class Restoration:
    """The state of an undo at one instant."""

    restored: bool | None
    """None: not known yet."""
    serving: str
    """`2 of 4 replicas are available (3 before)`, or why it is not known."""
    seen: Verification
    """How long the previous state has held; stored for the next observation."""


def judge_restoration(
    undone: Intent,
    workload: WorkloadView | None,
    seen: Verification,
    *,
    now: datetime,
    steady_for: timedelta,
    timeout: timedelta,
) -> Restoration:
    """Restored: as many replicas available as before the action, or a complete rollout.

    If the rollout is not complete, the number must hold for `steady_for`. The result
    is open until `timeout` after the undo.
    """
    before = undone.snapshot.available if undone.snapshot is not None else None
    if workload is None:
        serving, enough, whole = "running replicas are unknown", False, False
    else:
        serving = serving_now(workload, before)
        wanted = workload.desired_replicas
        least = wanted if before is None else min(wanted, before)
        enough = workload.available_replicas >= least and workload.replica_failure is None
        whole = workload.rollout_complete and workload.available_replicas >= wanted
    since = (seen.healthy_since or now) if enough else None
    noted = replace(seen, healthy_since=since, last_observed_at=now)
    restored: bool | None = None
    if whole or (since is not None and now - since >= steady_for):
        restored = True
    elif now - seen.started_at >= timeout:
        restored = False
    return Restoration(restored=restored, serving=serving, seen=noted)


def serving_now(workload: WorkloadView, before: int | None = None) -> str:
    """Available and desired replicas, and the cluster's reason for missing pods."""
    counted = f"{workload.available_replicas} of {workload.desired_replicas} replicas are available"
    if before is not None:
        counted += f" ({before} before)"
    return counted if workload.replica_failure is None else f"{counted}; {workload.replica_failure}"
