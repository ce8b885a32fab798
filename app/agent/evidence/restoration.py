"""Whether an undo restored the service: judged by what runs, not by the specification alone.

Pure; asked by `app.agent.soak`, which looks until there is an answer (promise 10).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from app.agent.guardrails.target_token import restored_parts
from app.agent.models import Intent, Snapshot, Verification
from app.agent.workload import WorkloadView


@dataclass(frozen=True, slots=True, kw_only=True)
class Restoration:
    """What can be said of an undo at one instant."""

    restored: bool | None
    """None: too early to tell."""
    serving: str
    """`2 of 4 replicas are available (3 before)`, or why that is not known."""
    seen: Verification
    """How long it has been as before; kept for the next look."""


def asks_as_before(undone: Intent, after: Snapshot | None) -> bool:
    """Whether the object asks again for what the undone action changed; the rest of it may be others'."""
    before = undone.snapshot
    if before is None or after is None:
        return False
    return after.body == before.body or restored_parts(undone.action, before.token, after.token)


def judge_restoration(
    undone: Intent,
    workload: WorkloadView | None,
    seen: Verification,
    *,
    now: datetime,
    steady_for: timedelta,
    timeout: timedelta,
) -> Restoration:
    """As many replicas available as before the action, or all that are wanted, over a completed rollout.

    A rollout that was not complete before need not be now; then the number must hold
    for `steady_for`. Until `timeout` after the undo it may still come.
    """
    before = undone.snapshot.available if undone.snapshot is not None else None
    if workload is None:
        serving, enough, whole = "what runs cannot be seen", False, False
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
    """How many replicas of how many are available, and why pods are missing where the cluster says so."""
    counted = f"{workload.available_replicas} of {workload.desired_replicas} replicas are available"
    if before is not None:
        counted += f" ({before} before)"
    return counted if workload.replica_failure is None else f"{counted}; {workload.replica_failure}"
