"""The revisions of a release, by its tool's own record, as changes and as facts for a person. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from app.agent.ids import ServiceKey
from app.agent.models import Change, ChangeKind, DeployStatus
from app.agent.workload import WorkloadView

STUCK_AFTER = timedelta(minutes=10)
"""A tool that waits for a release gives up earlier by default: after this it died, or its record is stale."""
_STATUSES = {
    "deployed": DeployStatus.SUCCEEDED,
    "superseded": DeployStatus.SUCCEEDED,
    "failed": DeployStatus.FAILED,
}


def with_releases(
    known: Sequence[Change], key: ServiceKey, workload: WorkloadView | None, since: datetime
) -> tuple[Change, ...]:
    """The changes and the revisions of the release since then, newest first."""
    if workload is None or workload.released_by is None:
        return tuple(known)
    new = [
        Change(
            kind=ChangeKind.DEPLOY,
            key=key,
            at=one.at,
            summary=f"{workload.released_by} revision {one.revision} ({one.status})",
            status=_STATUSES.get(one.status, DeployStatus.STARTED if one.pending else None),
        )
        for one in workload.release_records
        if one.at >= since
    ]
    return tuple(sorted((*known, *new), key=lambda c: (c.at, c.summary), reverse=True))


def pending_words(workload: WorkloadView, now: datetime) -> str | None:
    """That the newest revision of the release is not finished; None if it is, or no record was read."""
    newest = next(iter(workload.release_records), None)
    if newest is None or not newest.pending:
        return None
    since = f"{newest.at:%H:%M:%S} UTC"
    words = f"{workload.released_by} revision {newest.revision} is in {newest.status} since {since}"
    stuck = now - newest.at >= STUCK_AFTER
    return f"{words}: it is stuck, and no new release can begin until it is rolled back" if stuck else words
