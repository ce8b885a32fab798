"""Rolls back a workload through the application of a GitOps controller that owns it. Pure.

Part of `rollback`: which entry of the application's history runs the wanted revision, and
why the agent must not act through an application.
"""

from __future__ import annotations

from dataclasses import replace

from app.agent.actions.spec import Resolved, Unmet
from app.agent.evidence.facts import current_revision
from app.agent.gitops.application import Application, SyncedRevision
from app.agent.gitops.steps import (
    APPLICATION,
    GIT_REVISION,
    HISTORY_ID,
    LEFT_HISTORY_ID,
    LEFT_REVISION,
    short,
)
from app.agent.workload import Revision, WorkloadView


def refuses(application: Application) -> str | None:
    """Why the agent must not act through this application now, or None."""
    if application.held_by is not None and not application.automated:
        return (
            f"automated sync of {application.in_words} was switched off by an earlier action of the agent "
            "and is not restored yet: merge the revert, or switch it on again"
        )
    return next(iter(application.obstacles), None)


def through_application(
    plain: Resolved, wanted: Revision, workload: WorkloadView, application: Application
) -> Resolved | Unmet:
    """The rollback of `plain` as a rollback of the application that owns the workload."""
    if not application.history:
        return Unmet(reason=f"{application.in_words} has no history to go back to")
    left = application.history[0]
    entry = _entry_with(wanted, workload, application)
    if entry is None:
        images = ", ".join(wanted.images)
        return Unmet(
            reason=f"no entry in the history of {application.in_words} is known to run {images}: "
            "revert the change in Git"
        )
    switched = "automated sync is switched off until Git asks for it" if application.automated else ""
    others = max(0, application.resources - 1)
    effect = (
        f"{application.in_words} goes back from revision {short(left.revision)} to {short(entry.revision)}, "
        f"with which {plain.expected_effect}"
    )
    if others:
        effect += f"; the {others} other objects of the application go back as well"
    if switched:
        effect += f"; {switched}"
    return replace(
        plain,
        parameters={
            **plain.parameters,
            APPLICATION: str(application.ref),
            HISTORY_ID: entry.id,
            GIT_REVISION: entry.revision,
            LEFT_HISTORY_ID: left.id,
            LEFT_REVISION: left.revision,
        },
        expected_effect=effect,
    )


def _entry_with(wanted: Revision, workload: WorkloadView, application: Application) -> SyncedRevision | None:
    """The newest older entry that runs the images of the wanted revision.

    Images distinguish two revisions only if they differ from the running images.
    """
    images, current = tuple(sorted(wanted.images)), current_revision(workload)
    if current is not None and tuple(sorted(current.images)) == images:
        return None
    left = application.history[0]
    older = (one for one in application.history[1:] if one.revision != left.revision)
    return next((one for one in older if one.images == images), None)
