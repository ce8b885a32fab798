"""Rollback: run the newest older template that is known to work.

Never to a template that failed before, never across an irreversible release.
"""

from __future__ import annotations

from collections.abc import Mapping

from app.agent.actions.application import refuses, through_application
from app.agent.actions.preconditions import (
    first_reason,
    held_up_for_good,
    kind_lacks,
    owner_refuses,
    released_by_tool,
    rollout_paused,
    would_be_reverted,
)
from app.agent.actions.spec import (
    UNNAMED,
    ActionSpec,
    Parameter,
    PlanLimits,
    Resolution,
    Resolved,
    Unmet,
    rolling_pods,
    template_change,
)
from app.agent.evidence.facts import (
    changed_fields,
    current_revision,
    health_of,
    moved_digests,
    older_versions,
    runs_the_same,
    runs_version,
    served,
    without_requests,
)
from app.agent.evidence.onset.departure import departure
from app.agent.guardrails.target_token import TEMPLATE
from app.agent.guardrails.workload_kinds import kinds_with
from app.agent.ids import JsonScalar
from app.agent.models import (
    ActionName,
    Change,
    Evidence,
    Risk,
)
from app.agent.workload import Revision, RevisionHealth, WorkloadView

_EFFECT = "the previous healthy revision runs again; the changes of the release are removed"


def resolve(parameters: Mapping[str, JsonScalar], evidence: Evidence, limits: PlanLimits) -> Resolution:
    """`to: previous_healthy` becomes `revision`, the number of the revision to run again."""
    workload = evidence.workload
    if workload is None:
        crossed = next((c for c in evidence.changes if c.irreversible and c.key == evidence.key), None)
        if crossed is not None:
            return Unmet(reason=f"the deploy of {crossed.version} is marked irreversible")
        return Resolved(target=None, parameters=dict(parameters), expected_effect=_EFFECT, change=UNNAMED)
    application = workload.application
    held = would_be_reverted(workload) if application is None else refuses(application)
    reason = first_reason(
        kind_lacks(workload, TEMPLATE),
        owner_refuses(workload),
        held,
        held_up_for_good(workload, limits),
        rollout_paused(workload),
        _barrier(workload),
    )
    if reason is not None:
        return Unmet(reason=reason)
    passed_over: list[str] = []
    for revision in older_versions(workload):
        objection = _objection(revision, workload, evidence)
        if objection is None:
            found = _going_back_to(revision, workload)
            if application is None or isinstance(found, Unmet):
                return found
            return through_application(found, revision, workload, application)
        passed_over.append(f"revision {revision.number} {objection}")
    reasons = "; ".join(passed_over) or "no older revision is kept"
    return Unmet(reason=f"there is no revision to roll back to: {reasons}")


def _going_back_to(revision: Revision, workload: WorkloadView) -> Resolved | Unmet:
    """Rejects a revision that would pull the image that runs now."""
    current = current_revision(workload)
    images = ", ".join(revision.images)
    digests = moved_digests(revision, current, workload) if current is not None else None
    if current is not None and runs_the_same(revision, current):
        reason = (
            f"revision {revision.number} specifies the same image as revision {current.number} "
            f"({images}) and differs only in {', '.join(changed_fields(revision, current))}: "
            "a rollback would pull the same image again"
        )
        if digests is not None:
            before, now = digests
            reason += (
                f". The digests that ran differ: {before} in revision {revision.number}, {now} in "
                f"revision {current.number}. The tag was moved, so only a release by digest goes back to the "
                "older image"
            )
        return Unmet(reason=reason)
    effect = (
        f"revision {revision.number} ({images}) runs again in place of revision {workload.current_revision}"
    )
    if current is not None and revision.images == current.images:
        effect += "; the image references are the same, so the same images are pulled"
        if digests is not None:
            effect += f", and not {digests[0]}, which ran in revision {revision.number}"
    released = released_by_tool(workload)
    if released is not None:
        effect += f"; {released} does not notice it: watch the next release"
    return Resolved(
        target=workload.target.ref,
        parameters={"revision": revision.number},
        expected_effect=effect,
        change=template_change(workload, revision),
    )


def _barrier(workload: WorkloadView) -> str | None:
    current = current_revision(workload)
    if current is None:
        return f"{workload.target.ref} shows no revision"
    if current.barrier is not None:
        return f"revision {current.number} {current.barrier}: older code cannot run after it"
    return None


def _objection(revision: Revision, workload: WorkloadView, evidence: Evidence) -> str | None:
    """Why this revision is not a rollback target."""
    if health_of(evidence, revision) is RevisionHealth.FAILED:
        return "failed before"
    if not served(evidence, revision):
        if revision.ready_replicas and without_requests(evidence, revision):
            return "has no record of serving well, and received no requests while it ran"
        return "has no record of serving well, and no ready pod now"
    if health_of(evidence, revision) is RevisionHealth.UNKNOWN and _served_the_start(
        revision, workload, evidence
    ):
        return "served when the symptom began"
    for other in workload.revisions:
        later = other.number > revision.number or other.created_at > revision.created_at
        if other.barrier is not None and other.template_hash != revision.template_hash and later:
            return f"lies before revision {other.number}, which {other.barrier}"
    for change in evidence.changes:
        if change.irreversible and change.key == evidence.key and not _carried_by(change, revision):
            return f"lies before the deploy of {change.version}, which is marked irreversible"
    return None


def _served_the_start(revision: Revision, workload: WorkloadView, evidence: Evidence) -> bool:
    """Whether it was the newest revision when the symptom began, as far as that is measured."""
    left = departure(evidence)
    if left is None:
        return False
    before = [r for r in workload.revisions if r.created_at < left.by]
    newest = max(before, key=lambda r: r.number, default=None)
    return newest is not None and newest.template_hash == revision.template_hash


def _carried_by(change: Change, revision: Revision) -> bool:
    """Whether the revision already contains the irreversible change, so that a rollback does not cross it."""
    return revision.created_at >= change.at or runs_version(revision, change.version)


SPEC = ActionSpec(
    name=ActionName.ROLLBACK,
    risk=Risk.HIGH,
    parameters=(
        Parameter(
            name="to",
            meaning="previous_healthy: the newest older revision that served well and never failed",
            choices=("previous_healthy",),
        ),
    ),
    expected_effect=_EFFECT,
    undo="restore the template that ran before the rollback",
    resolve=resolve,
    kinds=kinds_with(TEMPLATE),
    changes=(TEMPLATE,),
    pods_taken=rolling_pods,
    enabled_by_default=True,
    drifts=True,
)
