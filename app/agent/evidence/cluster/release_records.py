"""The revisions of a release, by its tool's own record, as changes and as facts for a person. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from app.agent.ids import ServiceKey
from app.agent.models import Change, ChangeKind, DeployStatus
from app.agent.workload import ReleaseRecord, WorkloadView

STUCK_AFTER = timedelta(minutes=10)
"""A tool that waits for a release gives up earlier by default: after this it died, or its record is stale."""
_REPORTED_WITHIN = timedelta(minutes=5)
"""Before the beginning and after the end of a revision: a pipeline reports its deploy within this time."""
_WITHOUT_SUCCESS = (DeployStatus.FAILED, DeployStatus.CANCELLED)
_STATUSES = {
    "deployed": DeployStatus.SUCCEEDED,
    "superseded": DeployStatus.SUCCEEDED,
    "failed": DeployStatus.FAILED,
}


def with_releases(
    known: Sequence[Change], key: ServiceKey, workload: WorkloadView | None, since: datetime
) -> tuple[Change, ...]:
    """The changes and the revisions of the release begun since then, newest first.

    A revision is listed once: as the deploy report of the service with the same time and outcome, if any.
    """
    if workload is None or workload.released_by is None:
        return tuple(known)
    begun = [one for one in workload.release_records if one.begun_at >= since]
    new = [
        Change(
            kind=ChangeKind.DEPLOY,
            key=key,
            at=one.begun_at,
            summary=f"{workload.released_by} revision {one.revision} ({one.status})",
            status=_status(one),
        )
        for one in _unreported(begun, [c for c in known if c.key == key and c.kind is ChangeKind.DEPLOY])
    ]
    return tuple(sorted((*known, *new), key=lambda c: (c.at, c.summary), reverse=True))


def _status(one: ReleaseRecord) -> DeployStatus | None:
    return _STATUSES.get(one.status, DeployStatus.STARTED if one.pending else None)


def _unreported(records: Sequence[ReleaseRecord], reports: Sequence[Change]) -> list[ReleaseRecord]:
    """The revisions without a report; a report is of one revision, the nearest in time."""
    pairs = [
        (abs(report.at - one.begun_at), number, one.revision)
        for number, report in enumerate(reports)
        for one in records
        if _may_be(report, one)
    ]
    used: set[int] = set()
    reported: set[int] = set()
    for _, number, revision in sorted(pairs):
        if number not in used and revision not in reported:
            used.add(number)
            reported.add(revision)
    return [one for one in records if one.revision not in reported]


def _may_be(report: Change, one: ReleaseRecord) -> bool:
    """Whether the report is of this revision, by its time and by how both ended."""
    ended = one.at if one.status in ("deployed", "failed") else one.begun_at
    if not one.begun_at - _REPORTED_WITHIN <= report.at <= ended + _REPORTED_WITHIN:
        return False
    return one.pending or (report.status in _WITHOUT_SUCCESS) is (_status(one) is DeployStatus.FAILED)


def pending_words(workload: WorkloadView, now: datetime) -> str | None:
    """That the newest revision of the release is not finished; None if it is, or no record was read."""
    newest = next(iter(workload.release_records), None)
    if newest is None or not newest.pending:
        return None
    since = f"{newest.at:%H:%M:%S} UTC"
    words = f"{workload.released_by} revision {newest.revision} is in {newest.status} since {since}"
    stuck = now - newest.at >= STUCK_AFTER
    return f"{words}: it is stuck, and no new release can begin until it is rolled back" if stuck else words
