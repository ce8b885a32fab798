"""Syncs of a GitOps application as changes of the service, each once. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from app.agent.gitops.application import Application, SyncedRevision
from app.agent.ids import ServiceKey
from app.agent.models import Change, ChangeKind, DeployStatus

_SHORTEST = 7
"""Characters of a commit below which two are not compared."""


def with_syncs(
    reported: Sequence[Change], key: ServiceKey, application: Application | None, since: datetime
) -> tuple[Change, ...]:
    """The reported changes and the syncs of the application since then, newest first.

    A sync of a commit that a deploy report of the service names is the same change as that deploy,
    regardless of the number of reports.
    """
    if application is None:
        return tuple(reported)
    known = [c.commit_sha for c in reported if c.key == key and c.commit_sha is not None]
    new = [
        _change(key, application, one)
        for one in application.history
        if one.at >= since and not any(_same(one.revision, commit) for commit in known)
    ]
    return tuple(sorted((*reported, *new), key=lambda c: (c.at, c.summary), reverse=True))


def _change(key: ServiceKey, application: Application, one: SyncedRevision) -> Change:
    by = f" by {one.by}" if one.by else ""
    return Change(
        kind=ChangeKind.DEPLOY,
        key=key,
        at=one.at,
        summary=f"{application.in_words} synced to {one.revision[:8]}{by}",
        version=one.revision[:8],
        status=DeployStatus.SUCCEEDED,
        commit_sha=one.revision,
    )


def _same(one: str, other: str) -> bool:
    shorter, longer = sorted((one, other), key=len)
    return len(shorter) >= _SHORTEST and longer.startswith(shorter)
