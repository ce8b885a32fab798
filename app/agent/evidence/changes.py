"""Candidate changes of a service that may have caused the incident: its release, its configuration."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from app.agent.evidence.facts import (
    LOOKBACK,
    changed_fields,
    config_map_changes,
    current_revision,
    first_in_force,
    health_of,
    in_force_since,
    older_versions,
    reference_revision,
    rollout_stuck,
    runs_version,
)
from app.agent.evidence.onset.departure import departure, returned_at
from app.agent.evidence.releases import releases, reported_deploys
from app.agent.evidence.symptoms import CLOCK_TOLERANCE, incident_onset, reported
from app.agent.models import (
    Change,
    ChangeKind,
    Deploy,
    DeployStatus,
    Evidence,
)
from app.agent.workload import Revision, RevisionHealth, WorkloadView
from app.lists import some_of

_NAMED = 6
"""At most this many changed fields are listed in a message."""

_TAKES_EFFECT = timedelta(minutes=2)
"""A symptom that begins later after a rollout began is not the effect of a revision replaced since."""

REPORT_DELAY = timedelta(minutes=10)
"""A pipeline reports the end of a deploy up to this long after the first new pod ran."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateChange:
    """A candidate change: a recent change of the service itself."""

    what: str
    """`the release of 1.15.0`; used in messages."""
    at: datetime
    confirmed: bool
    """Seen in the cluster, not only reported by an event."""
    recent: bool = True
    """Active since shortly before the incident; an older change is ruled out as the cause."""
    stuck: bool = False
    """The rollout never completed: older pods still serve, so its age is not evidence."""
    in_template: bool = True
    """It is the workload's current template; a ConfigMap is not."""
    irreversible: bool = False
    reported_late: bool = False
    """Known only from the end of a deploy, which started earlier."""


def release_of(evidence: Evidence) -> CandidateChange | None:
    """The newest release (new code) of the service, from the cluster or else from the pipeline's reports."""
    if evidence.workload is None:
        return _reported_release(evidence)
    current = current_revision(evidence.workload)
    if current is None:
        return None
    uncorrected = _uncorrected_release(evidence, evidence.workload, current)
    if uncorrected is not None:
        return uncorrected
    reference = reference_revision(evidence)
    if reference is not None and reference.code_hash == current.code_hash:
        return None
    first = first_in_force(evidence.workload) or current
    what = f"the release of revision {first.number}{_naming(current, reference)}"
    return _changed_template(evidence, evidence.workload, current, what)


def _uncorrected_release(
    evidence: Evidence, workload: WorkloadView, current: Revision
) -> CandidateChange | None:
    """The release with which the symptom began, where a newer revision replaced it and the symptom lasts."""
    left, since, older = departure(evidence), in_force_since(workload), older_versions(workload)
    if left is None or since is None or left.by > since:
        return None
    begun = next((n for n, one in enumerate(older) if one.created_at < left.by), None)
    if begun is None or begun + 1 >= len(older):
        return None
    first = older[begun]
    if first.code_hash == older[begun + 1].code_hash or left.after - first.created_at > _TAKES_EFFECT:
        return None
    if health_of(evidence, first) is RevisionHealth.SERVED_WELL:
        return None
    returned = any(
        (at := returned_at(evidence, one)) is not None and at >= since for one in reported(evidence)
    )
    fate = f"whose symptom returned with revision {current.number}"
    if not returned:
        fate = f"which revision {current.number} did not correct"
    return CandidateChange(
        what=f"the release of revision {first.number}, {fate},",
        at=first.created_at,
        confirmed=True,
        irreversible=bool(current.barrier or first.barrier) or _barrier_since(evidence, first.created_at),
    )


def template_config_of(evidence: Evidence) -> CandidateChange | None:
    """A new template that differs from the previous one only in its configuration."""
    if evidence.workload is None:
        return None
    current, reference = current_revision(evidence.workload), reference_revision(evidence)
    if current is None or reference is None or reference.code_hash != current.code_hash:
        return None
    if reference.config_hash == current.config_hash:
        return None
    what = (
        f"the configuration change in revision {current.number} "
        f"(code unchanged since revision {reference.number})"
        f"{_naming(current, reference)}"
    )
    return _changed_template(evidence, evidence.workload, current, what)


def _naming(current: Revision, reference: Revision | None) -> str:
    """The changed fields of the template, for a message; values are never included."""
    changed = () if reference is None else changed_fields(current, reference)
    if not changed:
        return ""
    return f", which changed {some_of(changed, _NAMED)},"


def config_map_of(evidence: Evidence) -> CandidateChange | None:
    """The ConfigMap that changed last before the incident; else the first right after its start."""
    began = incident_onset(evidence)
    near = [c for c in config_map_changes(evidence) if began - LOOKBACK <= c.at <= began + CLOCK_TOLERANCE]
    change = next((c for c in near if c.at < began), near[-1] if near else None)
    if change is None:
        return None
    return CandidateChange(
        what=f"the change to ConfigMap {change.view.name}",
        at=change.at,
        confirmed=True,
        in_template=False,
    )


def reported_config_of(evidence: Evidence) -> CandidateChange | None:
    """A reported configuration change, where no cluster is connected to confirm it."""
    if evidence.workload is not None:
        return None
    candidates = _in_window(evidence, own_changes(evidence, ChangeKind.CONFIG), CLOCK_TOLERANCE)
    newest = _last_before(incident_onset(evidence), candidates)
    if newest is None:
        return None
    return CandidateChange(what=f"a configuration change ({newest.summary})", at=newest.at, confirmed=False)


def own_changes(evidence: Evidence, *kinds: ChangeKind) -> tuple[Change, ...]:
    """Reported changes of these kinds to the service."""
    return tuple(c for c in evidence.changes if c.key == evidence.key and c.kind in kinds)


def deploys(evidence: Evidence) -> tuple[Change, ...]:
    """Releases of the service without duplicates, from stored changes and from the incident's signals.

    A cancelled deploy is not a release.
    """
    candidates = [c for c in reported_deploys(evidence.signals) if c.key == evidence.key]
    known = releases((*own_changes(evidence, ChangeKind.DEPLOY), *candidates))
    return tuple(c for c in reversed(known) if c.status is not DeployStatus.CANCELLED)


def _changed_template(
    evidence: Evidence, workload: WorkloadView, current: Revision, what: str
) -> CandidateChange | None:
    since = in_force_since(workload)
    if since is None:
        return None
    began = incident_onset(evidence)
    named = [
        c for c in _in_window(evidence, deploys(evidence), REPORT_DELAY) if runs_version(current, c.version)
    ]
    stuck = rollout_stuck(workload)
    failed_before = health_of(evidence, current) is RevisionHealth.FAILED
    recent = began - LOOKBACK <= since <= began + CLOCK_TOLERANCE
    # A redeployed old template keeps its creation time in the cluster; the pipeline's time is correct.
    at = since if recent or not named else min(c.at for c in named)
    return CandidateChange(
        what=what,
        at=at,
        confirmed=True,
        recent=recent or bool(named) or stuck or failed_before,
        stuck=stuck,
        irreversible=current.barrier is not None
        or any(c.irreversible for c in named)
        or _barrier_since(evidence, at),
        reported_late=bool(named) and not recent,
    )


def _barrier_since(evidence: Evidence, at: datetime) -> bool:
    """Whether an irreversible deploy was reported at or after the rollout of this template."""
    return any(c.irreversible and c.at >= at - REPORT_DELAY for c in deploys(evidence))


def _reported_release(evidence: Evidence) -> CandidateChange | None:
    candidates = _in_window(evidence, deploys(evidence), REPORT_DELAY)
    newest = _last_before(incident_onset(evidence), candidates)
    if newest is None:
        return None
    reports = [
        s
        for s in evidence.signals
        if isinstance(s.payload, Deploy) and s.key == evidence.key and s.payload.version == newest.version
    ]
    start_known = newest.status is DeployStatus.STARTED or any(
        isinstance(s.payload, Deploy) and s.payload.status is DeployStatus.STARTED for s in reports
    )
    return CandidateChange(
        what=f"the release of {newest.version or 'an unnamed version'}",
        at=newest.at,
        confirmed=False,
        irreversible=any(c.irreversible for c in candidates),
        reported_late=not start_known and len(reports) < 2,
    )


def _last_before(began: datetime, changes: Iterable[Change]) -> Change | None:
    """The last change before the onset; else the first one after it."""
    known = sorted(changes, key=lambda c: c.at)
    earlier = [c for c in known if c.at < began]
    return earlier[-1] if earlier else next(iter(known), None)


def _in_window(evidence: Evidence, changes: Iterable[Change], tolerance: timedelta) -> list[Change]:
    began = incident_onset(evidence)
    return [c for c in changes if began - LOOKBACK <= c.at <= began + tolerance]
