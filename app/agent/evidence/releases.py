"""Releases of a service from pipeline reports: deduplicated, with the failures that were not resolved.

Pure; used by intake, the observer and the rules. Senders report a deploy when it
starts and when it ends, and report a deployed version again each time the health
of the application flaps. Reports may arrive in any order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from app.agent.ids import ServiceKey
from app.agent.models import (
    Change,
    ChangeKind,
    Deploy,
    DeployStatus,
    Signal,
)

_ORDER = (None, DeployStatus.STARTED, DeployStatus.FAILED, DeployStatus.SUCCEEDED, DeployStatus.CANCELLED)


@dataclass(frozen=True, slots=True, kw_only=True)
class _ReportedRelease:
    """One deployed or deploying version, merged from one or more reports."""

    change: Change
    """At the first report, with the status of the last one."""
    last_reported: datetime


def change_of(key: ServiceKey, deploy: Deploy, at: datetime) -> Change:
    """The change that one deploy report describes."""
    return Change(
        kind=ChangeKind.DEPLOY,
        key=key,
        at=at,
        summary=f"deploy of {deploy.version} {deploy.status}",
        version=deploy.version,
        irreversible=deploy.irreversible,
        status=deploy.status,
        commit_sha=deploy.commit_sha,
    )


def reported_deploys(signals: Iterable[Signal]) -> tuple[Change, ...]:
    """The deploy reports among signals, as one change each."""
    return tuple(change_of(s.key, s.payload, s.observed_at) for s in signals if isinstance(s.payload, Deploy))


def releases(reports: Iterable[Change], since: datetime | None = None) -> tuple[Change, ...]:
    """Each release of each service once, with the time of its first report and its last status; oldest first.

    A version that is deployed again after another one counts as a new release; a cancelled deploy replaces
    no release. With `since`, releases last reported before it are left out.
    """
    services: dict[ServiceKey, list[Change]] = {}
    for report in reports:
        services.setdefault(report.key, []).append(report)
    found = [one for of_service in services.values() for one in _of_service(of_service)]
    kept = (one.change for one in found if since is None or one.last_reported >= since)
    return tuple(sorted(kept, key=lambda c: (c.at, str(c.key), c.version or "")))


def once(changes: Iterable[Change], since: datetime | None = None) -> tuple[Change, ...]:
    """Changes of every kind, newest first, with each release once."""
    known = tuple(changes)
    others = [c for c in known if c.kind is not ChangeKind.DEPLOY and (since is None or c.at >= since)]
    deploys = releases((c for c in known if c.kind is ChangeKind.DEPLOY), since)
    return tuple(sorted((*others, *deploys), key=lambda c: (c.at, c.summary), reverse=True))


def standing_failures(signals: Sequence[Signal], changes: Iterable[Change] = ()) -> tuple[Signal, ...]:
    """The failed deploys among an incident's signals without a later successful deploy.

    A successful retry resolves a failure, and so does a later deploy of another
    version. `changes` are further reports about the same service.
    """
    reports = [*reported_deploys(signals), *(c for c in changes if c.kind is ChangeKind.DEPLOY)]
    succeeded = [(c.key, c.at) for c in reports if c.status is DeployStatus.SUCCEEDED]
    return tuple(
        s
        for s in signals
        if isinstance(s.payload, Deploy)
        and s.payload.status is DeployStatus.FAILED
        and not any(key == s.key and at > s.observed_at for key, at in succeeded)
    )


def _of_service(reports: Sequence[Change]) -> list[_ReportedRelease]:
    found: list[_ReportedRelease] = []
    cancelled: list[_ReportedRelease] = []
    for report in sorted(reports, key=lambda c: (c.at, _ORDER.index(c.status), c.version or "")):
        newest = found[-1] if found else None
        again = newest is not None and _same(newest.change, report)
        if report.status is DeployStatus.CANCELLED:
            if newest is not None and again and newest.change.status is DeployStatus.STARTED:
                cancelled.append(_merged(found.pop(), report))
            elif not again:
                cancelled.append(_ReportedRelease(change=report, last_reported=report.at))
        elif newest is not None and again:
            found[-1] = _merged(newest, report)
        else:
            found.append(_ReportedRelease(change=report, last_reported=report.at))
    return found + cancelled


def _merged(release: _ReportedRelease, report: Change) -> _ReportedRelease:
    first = release.change
    return _ReportedRelease(
        change=replace(
            first,
            summary=report.summary,
            status=report.status,
            irreversible=first.irreversible or report.irreversible,
            commit_sha=first.commit_sha or report.commit_sha,
        ),
        last_reported=max(release.last_reported, report.at),
    )


def _same(one: Change, other: Change) -> bool:
    """Whether both are the same version, and not known to be built from different commits."""
    if one.version is None or one.version != other.version:
        return False
    commits = {one.commit_sha, other.commit_sha} - {None}
    return len(commits) < 2
