"""Facts derived from `Evidence`: templates, their health, unhealthy pods, changed configuration.

Shared by rules (to find a cause) and actions (to resolve a runbook's parameters), so
that both use the same "previous release" and "served well". Pure: no I/O.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import pairwise

from app.agent.evidence.cluster.blockers import (
    PULL_REASONS,
    Obstacle,
    PullFault,
    missing_objects,
    mount_warning,
    obstacles,
    pull_fault,
)
from app.agent.ids import ServiceKey
from app.agent.models import Condition, Evidence
from app.agent.workload import (
    ConfigMapView,
    ConfigRecord,
    ContainerRole,
    PodView,
    Revision,
    RevisionHealth,
    WorkloadView,
)

LOOKBACK = timedelta(hours=1)
"""A change older than this at the start of the incident is not a candidate."""

STARTING = timedelta(seconds=30)
"""A pod younger than this that is not ready counts as starting."""

INITIALISING = timedelta(minutes=2)
"""The minimum time that an init container gets to end, because its work may take a while."""

BACK_OFF = timedelta(minutes=10)
"""A node starts a container that crashes again after 5 min at the latest, and it runs for a while."""

_RATE_LOOKS_BACK = timedelta(minutes=1)
_FEW_REQUESTS = 10
"""Fewer requests than this give no evidence about a revision."""

_CRASH = frozenset({"CrashLoopBackOff"})
_START = frozenset({"RunContainerError", "CreateContainerError", "StartError"})
_BEGINNING = frozenset({"ContainerCreating", "PodInitializing"})


class PodFault(StrEnum):
    """The fault of one pod."""

    IMAGE = "cannot pull their image"
    REGISTRY = "wait for a registry that does not answer"
    CRASH = "keep crashing"
    START = "cannot create or run their container"
    OUT_OF_MEMORY = "are killed for using too much memory"
    CONFIGURATION = "refer to configuration that does not exist"
    NOT_READY = "run but are not ready"
    UNSCHEDULED = "cannot be scheduled"
    STORAGE = "wait for a volume"
    STOPPED = "ended and are not started again"
    LOST = "are on an unreachable node"


def pod_fault(pod: PodView, at: datetime) -> PodFault | None:
    """The fault of `pod` at `at`; None for a pod that is ready, starting, or replaced already."""
    if pod.phase == "Unknown" or pod.node_lost or pod.waiting_reason == "NodeLost":
        return PodFault.LOST
    if pod.waiting_reason in PULL_REASONS:
        return PodFault.REGISTRY if pull_fault(pod) is PullFault.UNREACHABLE else PodFault.IMAGE
    if pod.waiting_reason == "CreateContainerConfigError":
        said = pod.failing.message if pod.failing is not None else ""
        return PodFault.CONFIGURATION if not said or missing_objects(pod) else PodFault.START
    if pod.waiting_reason in _START:
        return PodFault.START
    killed = pod.last_termination_reason == "OOMKilled"
    if pod.waiting_reason in _CRASH:
        return PodFault.OUT_OF_MEMORY if killed else PodFault.CRASH
    if pod.ready or pod.leftover:
        return None
    if killed and pod.restarts > 0:
        return PodFault.OUT_OF_MEMORY
    if _crashed(pod, at):
        return PodFault.CRASH
    return _standstill(pod, at) if at - pod.created_at >= STARTING else None


def _crashed(pod: PodView, at: datetime) -> bool:
    """Whether a pod that is not ready crashes: between two crashes its container runs for a moment.

    A restart long ago says nothing about a pod that is not ready now.
    """
    ended = pod.failing.last_ended_at if pod.failing is not None else None
    if ended is None:
        return pod.restarts >= 2
    return pod.restarts > 0 and pod.last_termination_reason is not None and at - ended <= BACK_OFF


def _standstill(pod: PodView, at: datetime) -> PodFault | None:
    """The silent obstacle that a pod waits for; None while its containers are being created."""
    if pod.unschedulable is not None:
        claim = obstacles(pod.unschedulable) == (Obstacle.VOLUME,)
        return PodFault.STORAGE if claim else PodFault.UNSCHEDULED
    if mount_warning(pod) is not None:
        return PodFault.CONFIGURATION if missing_objects(pod) else PodFault.STORAGE
    ended = pod.failing.ended_at if pod.failing is not None else None
    if ended is not None and at - ended >= STARTING:
        return PodFault.STOPPED
    if pod.waiting_reason in _BEGINNING:
        return PodFault.NOT_READY if initialising(pod, at) is not None else None
    return PodFault.UNSCHEDULED if pod.phase == "Pending" else PodFault.NOT_READY


def initialising(pod: PodView, at: datetime) -> timedelta | None:
    """How long a pod has waited for an init container that runs and does not end; None for no such pod.

    Counted from its start: until then the pod was scheduled, pulled images or ran other init containers.
    """
    failing = pod.failing
    if failing is None or failing.running_since is None or failing.role is ContainerRole.MAIN:
        return None
    waited = at - failing.running_since
    return waited if pod.waiting_reason == "PodInitializing" and waited >= INITIALISING else None


def migrating(workload: WorkloadView | None, at: datetime) -> PodView | None:
    """A pod of the current version whose init container migrates data and has not ended; None without one.

    Stopping it may leave the data between two versions.
    """
    pods = () if workload is None else current_pods(workload)
    return next(
        (p for p in pods if p.failing is not None and p.failing.migrates and initialising(p, at) is not None),
        None,
    )


def unhealthy_dependencies(evidence: Evidence) -> tuple[ServiceKey, ...]:
    """The services that this one calls and that have an open incident, or fail at this moment."""
    failing = {*evidence.other_open_incidents, *(one.key for one in evidence.failing_beside)}
    return tuple(sorted(one for one in evidence.dependencies if one in failing))


def current_revision(workload: WorkloadView) -> Revision | None:
    """The revision that the workload specifies; None when no revisions are known."""
    for revision in workload.revisions:
        if revision.number == workload.current_revision:
            return revision
    return None


def same_version(one: Revision, other: Revision) -> bool:
    """Whether code and configuration are equal: the revisions differ at most by a restart."""
    alike = one.code_hash == other.code_hash and one.config_hash == other.config_hash
    return alike or one.template_hash == other.template_hash


def changed_fields(one: Revision, other: Revision) -> tuple[str, ...]:
    """The names of the template fields that differ; empty where the fields are not known."""
    if not one.fields or not other.fields:
        return ()
    differing = {name for name, _ in set(one.fields) ^ set(other.fields)}
    return tuple(sorted(differing))


def runs_the_same(one: Revision, other: Revision) -> bool:
    """Whether two revisions run the same images and differ only in labels or annotations.

    A mutable tag may now pull another image: a rollback to an equal reference does
    not restore the earlier image.
    """
    marks = ("label ", "annotation ")
    changed = changed_fields(one, other)
    return bool(changed) and one.images == other.images and all(name.startswith(marks) for name in changed)


def differs_in_marks(one: Revision, other: Revision) -> bool:
    """Whether two revisions differ only in annotations that nothing in the cluster reads.

    An annotation for a controller or an injector has a prefix (`vault.hashicorp.com/role`); `released-at`
    and `checksum/config` only make a controller replace the pods.
    """
    changed = changed_fields(one, other)
    return bool(changed) and all(_is_mark(name) for name in changed)


def _is_mark(name: str) -> bool:
    kind, _, annotation = name.partition(" ")
    return kind == "annotation" and annotation.rpartition("/")[0] in ("", "checksum")


def moved_digests(before: Revision, now: Revision, workload: WorkloadView) -> tuple[str, str] | None:
    """The digests of one image reference, before and now, where the pods show that they differ."""
    then, here = _digests(before, workload), _digests(now, workload)
    for container in sorted(then.keys() & here.keys()):
        if not then[container] & here[container]:
            return ", ".join(sorted(then[container])), ", ".join(sorted(here[container]))
    return None


def _digests(revision: Revision, workload: WorkloadView) -> dict[str, set[str]]:
    """The image digests that the pods of a revision run, by container."""
    found: dict[str, set[str]] = {}
    for pod in workload.pods:
        if pod.template_hash == revision.template_hash:
            for entry in pod.image_digests:
                container, _, digest = entry.partition("=")
                found.setdefault(container, set()).add(digest)
    return found


def older_versions(workload: WorkloadView) -> tuple[Revision, ...]:
    """Older revisions with another version, newest first, one for each template."""
    current = current_revision(workload)
    if current is None:
        return ()
    found: dict[str, Revision] = {}
    for revision in sorted(workload.revisions, key=lambda r: r.number, reverse=True):
        if revision.number < current.number and not same_version(revision, current):
            found.setdefault(revision.template_hash, revision)
    return tuple(found.values())


def first_in_force(workload: WorkloadView) -> Revision | None:
    """The revision that rolled out the current version; a restart makes a newer one of the same version."""
    current = current_revision(workload)
    if current is None:
        return None
    first = current
    for revision in sorted(workload.revisions, key=lambda r: r.number, reverse=True):
        if revision.number > current.number:
            continue
        if not same_version(revision, current):
            break
        first = min(first, revision, key=lambda one: one.created_at)
    return first


def in_force_since(workload: WorkloadView) -> datetime | None:
    """When the current version was rolled out; restarts do not count."""
    first = first_in_force(workload)
    return None if first is None else first.created_at


def health_of(evidence: Evidence, revision: Revision) -> RevisionHealth:
    """The recorded health of a version; one failure outweighs any success."""
    kept = evidence.workload.revisions if evidence.workload is not None else ()
    templates = {revision.template_hash} | {r.template_hash for r in kept if same_version(r, revision)}
    found = {
        r.health for r in evidence.revision_history if r.key == evidence.key and r.template_hash in templates
    }
    for health in (RevisionHealth.FAILED, RevisionHealth.SERVED_WELL):
        if health in found:
            return health
    return RevisionHealth.UNKNOWN


def served(evidence: Evidence, revision: Revision) -> bool:
    """Evidence that a revision works: it served well before, or its ready pods received requests."""
    health = health_of(evidence, revision)
    return health is RevisionHealth.SERVED_WELL or (
        health is RevisionHealth.UNKNOWN
        and revision.ready_replicas > 0
        and not without_requests(evidence, revision)
    )


def without_requests(evidence: Evidence, revision: Revision) -> bool:
    """Whether requests are measured and this revision received fewer than 10 before it was replaced."""
    current = current_revision(evidence.workload) if evidence.workload is not None else None
    counted = [s for s in evidence.sli if s.request_rate is not None]
    if current is None or not counted:
        return False
    # A rate covers the requests of a window before the sample.
    start, end = revision.created_at + _RATE_LOOKS_BACK, current.created_at
    if end <= min(s.at for s in counted) or end <= start:
        return False
    requests = 0.0
    for before, sample in pairwise(counted):
        if start <= before.at and sample.at <= end:
            requests += (sample.request_rate or 0.0) * (sample.at - before.at).total_seconds()
    return requests < _FEW_REQUESTS


def reference_revision(evidence: Evidence) -> Revision | None:
    """The version for the comparison: the newest older one that is not known to have failed."""
    if evidence.workload is None:
        return None
    for revision in older_versions(evidence.workload):
        if health_of(evidence, revision) is not RevisionHealth.FAILED:
            return revision
    return None


def current_pods(workload: WorkloadView) -> tuple[PodView, ...]:
    """The pods that run the current version."""
    current = current_revision(workload)
    if current is None:
        return ()
    same = {r.template_hash for r in workload.revisions if same_version(r, current)}
    return tuple(p for p in workload.pods if p.template_hash in same)


def older_pods(workload: WorkloadView) -> tuple[PodView, ...]:
    """The pods that still run another version; pods without a known template are excluded."""
    current = set(current_pods(workload))
    return tuple(
        p
        for p in workload.pods
        if p not in current and p.template_hash is not None and p.phase not in ("Failed", "Succeeded")
    )


def rollout_stuck(workload: WorkloadView) -> bool:
    """The rollout is stuck: no pod of the current version is ready while older pods serve."""
    return any(p.ready for p in older_pods(workload)) and not any(p.ready for p in current_pods(workload))


def runs_version(revision: Revision, version: str | None) -> bool:
    """Whether an image of the revision is tagged with that version."""
    if version is None:
        return False
    tags = {image.split("@")[0].rpartition("/")[2].partition(":")[2] for image in revision.images}
    return version in tags or f"v{version}" in tags


def out_of_memory(evidence: Evidence) -> bool:
    """Containers are OOM-killed now, according to the cluster or a signal of this incident."""
    if Condition.OOM_KILLED in evidence.conditions:
        return True
    workload = evidence.workload
    return workload is not None and any(
        pod_fault(p, evidence.at) is PodFault.OUT_OF_MEMORY for p in workload.pods
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigMapChange:
    """A ConfigMap whose current content is not known to have served well."""

    view: ConfigMapView
    at: datetime
    """When the current content was first seen or written; the best known time."""
    last_good: ConfigRecord | None
    """The newest other content that served well and never failed."""


def config_map_changes(evidence: Evidence) -> tuple[ConfigMapChange, ...]:
    """ConfigMaps of the workload that changed at a known time, latest change first.

    Content that served well is not a candidate. Content without a known time of change is left out. A
    ConfigMap to which only the current template refers, such as one with a hash of the content in its name,
    belongs to the template: in this case the template changed.
    """
    if evidence.workload is None:
        return ()
    found: list[ConfigMapChange] = []
    came_with_template = _newly_referenced(evidence)
    for view in evidence.workload.config_maps:
        records = [r for r in evidence.config_history if r.key == evidence.key and r.name == view.name]
        present = [r for r in records if r.content_hash == view.content_hash]
        others = [r for r in records if r.content_hash != view.content_hash]
        seen = {r.health for r in present}
        if RevisionHealth.SERVED_WELL in seen and RevisionHealth.FAILED not in seen:
            continue
        if not others and f"ConfigMap {view.name}" in came_with_template:
            continue
        first_seen = min((r.seen_at for r in present), default=None) if others else None
        at = view.changed_at or first_seen
        if at is not None:
            found.append(ConfigMapChange(view=view, at=at, last_good=_last_good(others)))
    return tuple(sorted(found, key=lambda c: (c.at, c.view.name), reverse=True))


def _newly_referenced(evidence: Evidence) -> frozenset[str]:
    """The objects to which the current template refers and the previous version did not."""
    current = current_revision(evidence.workload) if evidence.workload is not None else None
    before = reference_revision(evidence)
    if current is None or current.references is None or before is None or before.references is None:
        return frozenset()
    return current.references - before.references


def _last_good(records: list[ConfigRecord]) -> ConfigRecord | None:
    failed = {r.content_hash for r in records if r.health is RevisionHealth.FAILED}
    good = [r for r in records if r.health is RevisionHealth.SERVED_WELL and r.content_hash not in failed]
    return max(good, key=lambda r: (r.seen_at, r.content_hash), default=None)
