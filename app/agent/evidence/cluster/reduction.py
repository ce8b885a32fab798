"""Replicas that someone took away from the service, as its changes and its workload show. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from app.agent.evidence.changes import own_changes
from app.agent.models import Change, ChangeKind, Evidence

_COUNTS = re.compile(r" scaled it from ([0-9]+) to ([0-9]+) replicas?$")
"""As `scale_change` writes them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reduction:
    """A lower number of replicas that is still in force."""

    change: Change
    before: int
    after: int


def reduction_of(evidence: Evidence) -> Reduction | None:
    """The newest change of the number of replicas, if it took replicas away and nothing scaled since.

    None for a workload that an autoscaler scales, that another object runs, or that is scaled to zero.
    """
    workload = evidence.workload
    if (
        workload is None
        or workload.served_by is not None
        or any(a.sets_replicas for a in workload.autoscalers)
    ):
        return None
    newest = max(own_changes(evidence, ChangeKind.SCALE), key=lambda change: change.at, default=None)
    counts = None if newest is None else _COUNTS.search(newest.summary)
    if newest is None or counts is None:
        return None
    before, after = int(counts[1]), int(counts[2])
    if not 0 < after < before or workload.desired_replicas != after:
        return None
    return Reduction(change=newest, before=before, after=after)
