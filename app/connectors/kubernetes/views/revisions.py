"""The revisions of a workload, and how far its rollout has come. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from app.agent.ids import JsonObject
from app.agent.workload import PodView, Revision
from app.connectors.kubernetes.api import FIELD_MANAGER, Kind
from app.connectors.kubernetes.fields import (
    condition_of,
    controller_uid,
    created_at,
    kind_of,
    mapping,
    moment,
    name,
    number,
    objects,
    text,
    texts,
    uid,
)
from app.connectors.kubernetes.releases.migrations import migrations_by_revision
from app.connectors.kubernetes.templates import (
    PREFIX,
    REVISION_HASH_LABEL,
    code_hash,
    config_hash,
    template_fields,
    template_hash,
    template_of,
)
from app.connectors.kubernetes.views.quantities import as_bytes
from app.connectors.kubernetes.views.references import references
from app.connectors.kubernetes.views.targets import TEMPLATE, desired_replicas, last_change

IRREVERSIBLE = PREFIX + "irreversible"
_NUMBERED = ("deployment.kubernetes.io/revision", "rollout.argoproj.io/revision")
_TAKEN_UP_AGAIN = tuple(f"{name}-history" for name in _NUMBERED)
"""The earlier numbers of a ReplicaSet whose template was asked for again, as its controller writes them."""
_NUMBER = (("f:revision",),)
"""Where `managedFields` says who wrote the number of a ControllerRevision."""
_BY_TEMPLATE = frozenset({Kind.STATEFUL_SET, Kind.DAEMON_SET})
"""Kinds whose objects do not say which of their revisions is the present one: the template does."""


def revision_number(item: JsonObject) -> int | None:
    """The number that the controller wrote on a Deployment, Rollout, ReplicaSet or ControllerRevision."""
    numbered = number(item, "revision")
    if numbered is not None:
        return numbered
    annotations = texts(item, "metadata", "annotations")
    written = next((annotations[name] for name in _NUMBERED if name in annotations), "")
    return int(written) if written.isascii() and written.isdigit() else None


def current_number(workload: JsonObject, kept: Iterable[JsonObject]) -> int | None:
    """The revision that a workload asks for; None where its controller has not made one yet."""
    if kind_of(workload) not in _BY_TEMPLATE:
        return revision_number(workload)
    wanted = template_hash(template_of(workload))
    numbers = (revision_number(item) or 0 for item in kept if template_hash(template_of(item)) == wanted)
    return max(numbers, default=None)


def revision_hashes(kept: Iterable[JsonObject]) -> dict[str, str]:
    """The template hash of each revision, by all that its pods may name it by: see `revision_of_pod`."""
    hashes: dict[str, str] = {}
    for item in kept:
        names = {uid(item), name(item), text(item, "metadata", "labels", REVISION_HASH_LABEL)}
        hashes |= dict.fromkeys((one for one in names if one), template_hash(template_of(item)))
    return hashes


def revision_of_pod(pod: JsonObject, hashes: Mapping[str, str]) -> str | None:
    """The template hash of a pod's revision: by its label where its controller keeps ControllerRevisions."""
    labelled = text(pod, "metadata", "labels", REVISION_HASH_LABEL)
    return hashes.get(labelled or "") or hashes.get(controller_uid(pod) or "")


def revisions_of(
    workload: JsonObject,
    kept: Sequence[JsonObject],
    pods: Iterable[PodView],
    migrations: Iterable[JsonObject] = (),
) -> tuple[Revision, ...]:
    """The revisions that ReplicaSets or ControllerRevisions hold, newest first.

    `migrations` are the pods of Jobs that name a migration of data.
    """
    numbered = [(number, item) for item in kept if (number := revision_number(item)) is not None]
    numbered.sort(key=lambda pair: pair[0], reverse=True)
    current = current_number(workload, kept)
    running = tuple(pods)
    migrated = migrations_by_revision(workload, numbered, running, tuple(migrations))
    found = [
        replace(
            _revision(number, item, running, irreversible=number == current and _irreversible(workload)),
            created_at=_asked_for(workload, number, numbered, running)
            if number == current
            else created_at(item),
            migrated_by=None if _said(workload) is False or _said(item) is False else migrated.get(number),
        )
        for number, item in numbered
    ]
    return tuple(found)


def _revision(revision: int, kept: JsonObject, pods: Sequence[PodView], *, irreversible: bool) -> Revision:
    template = template_of(kept)
    own_hash = template_hash(template)
    counted = kind_of(kept) != Kind.CONTROLLER_REVISION
    own = [pod for pod in pods if pod.template_hash == own_hash and not pod.leftover]
    return Revision(
        number=revision,
        template_hash=own_hash,
        code_hash=code_hash(template),
        config_hash=config_hash(template),
        fields=template_fields(template),
        images=tuple(text(item, "image") or "" for item in objects(template, "spec", "containers")),
        created_at=created_at(kept),
        replicas=(number(kept, "status", "replicas") or 0) if counted else len(own),
        ready_replicas=(number(kept, "status", "readyReplicas") or 0)
        if counted
        else sum(pod.ready for pod in own),
        irreversible=irreversible or _irreversible(kept),
        memory_limits=_memory_limits(template),
        references=references(template),
    )


def _asked_for(
    workload: JsonObject, current: int, kept: Sequence[tuple[int, JsonObject]], pods: Iterable[PodView]
) -> datetime:
    """When the workload asked for its present template: at its creation, or when it was brought back.

    What a person or a pipeline brings back is a release; what the agent brings back keeps its date.
    """
    own = next(item for number, item in kept if number == current)
    created, write = created_at(own), last_change(workload, TEMPLATE)
    if text(write, "manager") == FIELD_MANAGER:
        return created
    if kind_of(own) == Kind.CONTROLLER_REVISION:
        return max(created, moment(last_change(own, _NUMBER), "time") or created)
    if not any(name in texts(own, "metadata", "annotations") for name in _TAKEN_UP_AGAIN):
        return created
    earliest = max((created_at(item) for number, item in kept if number < current), default=created)
    return max(created, _brought_back(workload, own, pods, earliest, moment(write, "time")))


def _brought_back(
    workload: JsonObject,
    own: JsonObject,
    pods: Iterable[PodView],
    earliest: datetime,
    written: datetime | None,
) -> datetime:
    """When the template of a kept ReplicaSet was asked for again.

    Its controller gives it a new number and leaves its creation time. The template
    was then written after every revision with a lower number was created, and before
    its first new pod and the end of its rollout. The writer of the template may have
    changed other fields later.
    """
    hashed = template_hash(template_of(own))
    new = [pod.created_at for pod in pods if pod.template_hash == hashed and pod.created_at >= earliest]
    latest = (written, _rolled_out_at(workload), *new)
    return max(earliest, min([one for one in latest if one is not None], default=earliest))


def _rolled_out_at(workload: JsonObject) -> datetime | None:
    """When every pod was of the present template, as its controller recorded it; None before that."""
    counts = counts_of(workload)
    progress = condition_of(workload, "Progressing")
    whole = 0 < counts.updated == counts.total and spec_observed(workload)
    if not whole or text(progress, "reason") != "NewReplicaSetAvailable":
        return None
    return moment(progress, "lastUpdateTime")


def _memory_limits(template: JsonObject) -> tuple[tuple[str, int], ...]:
    limits = {
        text(one, "name") or "": as_bytes(text(one, "resources", "limits", "memory"))
        for one in objects(template, "spec", "containers")
    }
    return tuple(sorted((name, limit) for name, limit in limits.items() if limit is not None))


def _irreversible(workload: JsonObject) -> bool:
    return _said(workload) is True


def _said(workload: JsonObject) -> bool | None:
    """Whether its owners say that it cannot be rolled back; None where they say nothing."""
    places = (mapping(workload, "metadata"), mapping(template_of(workload), "metadata"))
    said = {text(place, "annotations", IRREVERSIBLE) for place in places}
    return True if "true" in said else False if "false" in said else None


def deadline_exceeded(workload: JsonObject) -> bool:
    """Whether the rollout made no progress within its deadline, where the kind has one."""
    return text(condition_of(workload, "Progressing"), "reason") == "ProgressDeadlineExceeded"


def spec_observed(workload: JsonObject) -> bool:
    """Whether the controller has seen the newest specification; a Rollout writes the number as text."""
    written = text(workload, "status", "observedGeneration") or ""
    as_number = int(written) if written.isascii() and written.isdigit() else 0
    observed = number(workload, "status", "observedGeneration") or as_number
    return observed >= (number(workload, "metadata", "generation") or 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How many pods a workload asks for and has, under whatever names its kind gives them."""

    desired: int
    updated: int
    ready: int
    available: int
    total: int


def counts_of(workload: JsonObject) -> Counts:
    """From the status; what a DaemonSet asks for follows from the nodes."""
    status = mapping(workload, "status")
    if kind_of(workload) == Kind.DAEMON_SET:
        names = ("updatedNumberScheduled", "numberReady", "numberAvailable", "currentNumberScheduled")
        desired = number(status, "desiredNumberScheduled") or 0
    else:
        names = ("updatedReplicas", "readyReplicas", "availableReplicas", "replicas")
        desired = desired_replicas(workload)
    updated, ready, available, total = (number(status, name) or 0 for name in names)
    return Counts(desired=desired, updated=updated, ready=ready, available=available, total=total)


def rollout_complete(workload: JsonObject) -> bool:
    """As `kubectl rollout status` decides it; with a partition only once every pod is updated."""
    counts = counts_of(workload)
    return (
        spec_observed(workload)
        and not deadline_exceeded(workload)
        and counts.updated >= counts.desired
        and counts.total <= counts.updated
        and counts.available >= counts.updated
    )
