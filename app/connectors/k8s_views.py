"""Turns API objects into the views that diagnosis, policy and verification look at.

Pure; called by the reader. No value of a ConfigMap, a Secret or an environment
variable gets into a view, only hashes of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from app.agent.consent import said
from app.agent.models import (
    ConfigMapView,
    IntentId,
    JsonObject,
    ObjectRef,
    PodView,
    Revision,
    TargetState,
    WorkloadView,
)
from app.connectors.k8s_fields import (
    controller_uid,
    created_at,
    digest,
    flag,
    mapping,
    moment,
    name,
    number,
    objects,
    text,
    texts,
    uid,
)
from app.redaction import redacted

PREFIX = "self-healing-devops-agent/"
MARKER = PREFIX + "intent"
IRREVERSIBLE = PREFIX + "irreversible"
REVISION = "deployment.kubernetes.io/revision"
TEMPLATE_HASH_LABEL = "pod-template-hash"

_CODE_FIELDS = (
    "name",
    "image",
    "command",
    "args",
    "workingDir",
    "ports",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
)
CONFIG_FIELDS = ("env", "envFrom", "resources", "volumeMounts")
"""What of a container is configuration; with the template's volumes that is what a config revert restores."""
_CONTAINER_LISTS = ("initContainers", "containers")
_NORMAL_WAITING = frozenset({"ContainerCreating", "PodInitializing"})
_SPEC_FIELDS = {"Deployment": ("f:spec",), "ConfigMap": ("f:data", "f:binaryData")}
_WARNINGS_LIMIT = 20
_WARNING_CHARACTERS = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadObjects:
    """Everything that was read about one Deployment."""

    deployment: JsonObject
    replica_sets: tuple[JsonObject, ...]
    """Only those that the Deployment controls."""
    pods: tuple[JsonObject, ...]
    """Only those that these ReplicaSets control."""
    config_maps: tuple[JsonObject, ...]
    events: tuple[JsonObject, ...]
    """Warning events of the namespace."""
    unread: tuple[str, ...] = ()
    """What could not be read, in words; told among the warnings."""


# ---------------------------------------------------------------- templates


def template_of(workload: JsonObject) -> JsonObject:
    """The pod template of a Deployment or ReplicaSet as a person wrote it: without the controller's label."""
    template = dict(mapping(workload, "spec", "template"))
    metadata = dict(mapping(template, "metadata"))
    labels = dict(mapping(metadata, "labels"))
    labels.pop(TEMPLATE_HASH_LABEL, None)
    if "labels" in metadata:
        metadata["labels"] = labels
    if "metadata" in template:
        template["metadata"] = metadata
    return template


def template_hash(template: JsonObject) -> str:
    return digest(template)


def code_hash(template: JsonObject) -> str:
    """Over what a release changes: images, commands, ports and probes."""
    return digest(
        {
            kind: [
                {field: container[field] for field in _CODE_FIELDS if field in container}
                for container in objects(template, "spec", kind)
            ]
            for kind in _CONTAINER_LISTS
        }
    )


def config_hash(template: JsonObject) -> str:
    """Over environment, resources, volumes and what they refer to."""
    return digest(
        {
            "volumes": mapping(template, "spec").get("volumes"),
            **{
                kind: [
                    {field: container[field] for field in ("name", *CONFIG_FIELDS) if field in container}
                    for container in objects(template, "spec", kind)
                ]
                for kind in _CONTAINER_LISTS
            },
        }
    )


def config_map_names(template: JsonObject) -> tuple[str, ...]:
    """The ConfigMaps that a template refers to, sorted."""
    found: set[str | None] = set(config_maps_read_at_start(template))
    for volume in objects(template, "spec", "volumes"):
        found.add(text(volume, "configMap", "name"))
        found.update(text(item, "configMap", "name") for item in objects(volume, "projected", "sources"))
    return tuple(sorted(item for item in found if item is not None))


def config_maps_read_at_start(template: JsonObject) -> frozenset[str]:
    """Those that containers take into their environment: a running one does not see them change."""
    found: set[str | None] = set()
    for kind in _CONTAINER_LISTS:
        for container in objects(template, "spec", kind):
            found.update(text(item, "configMapRef", "name") for item in objects(container, "envFrom"))
            found.update(
                text(item, "valueFrom", "configMapKeyRef", "name") for item in objects(container, "env")
            )
    return frozenset(item for item in found if item is not None)


# ---------------------------------------------------------------- targets


def config_data_hash(config_map: JsonObject) -> str:
    """Over the data alone; binary data joins in where there is some."""
    data = mapping(config_map, "data")
    binary = mapping(config_map, "binaryData")
    return digest({"data": data, "binaryData": binary} if binary else data)


def target_state(ref: ObjectRef, item: JsonObject) -> TargetState:
    """What a decision on this object is bound to."""
    asked = (
        config_data_hash(item)
        if ref.kind == "ConfigMap"
        else str(number(item, "metadata", "generation") or 0)
    )
    marker = text(item, "metadata", "annotations", MARKER)
    changer = _last_change(item, _SPEC_FIELDS.get(ref.kind, ()))
    return TargetState(
        ref=ref,
        uid=uid(item),
        resource_version=text(item, "metadata", "resourceVersion") or "",
        token=f"{uid(item)}/{asked}",
        marker=IntentId(marker) if marker is not None else None,
        changed_by=text(changer, "manager"),
    )


def _last_change(item: JsonObject, fields: Sequence[str]) -> JsonObject:
    """The entry of `managedFields` that touched one of `fields` last; empty where none says so."""
    last: JsonObject = {}
    at: datetime | None = None
    for entry in objects(item, "metadata", "managedFields"):
        time = moment(entry, "time")
        touched = any(field in mapping(entry, "fieldsV1") for field in fields)
        if (
            touched
            and text(entry, "subresource") != "status"
            and time is not None
            and (at is None or time >= at)
        ):
            last, at = entry, time
    return last


def managed_by(deployment: JsonObject) -> str | None:
    """The GitOps controller that owns a workload: `argocd`, `flux`, or None."""
    annotations = texts(deployment, "metadata", "annotations")
    labels = texts(deployment, "metadata", "labels")
    argo = "argocd.argoproj.io/"
    if argo + "tracking-id" in annotations or argo + "instance" in labels:
        return "argocd"
    if "app.kubernetes.io/instance" in labels and any(item.startswith(argo) for item in annotations):
        return "argocd"
    if any(f"{part}.toolkit.fluxcd.io/name" in labels for part in ("kustomize", "helm")):
        return "flux"
    return None


# ---------------------------------------------------------------- the view


def workload_view(found: WorkloadObjects, ref: ObjectRef, observed_at: datetime) -> WorkloadView:
    """One Deployment with what hangs on it."""
    deployment = found.deployment
    hashes = {uid(item): template_hash(template_of(item)) for item in found.replica_sets}
    revisions = _revisions(deployment, found.replica_sets)
    read_at_start = config_maps_read_at_start(template_of(deployment))
    return WorkloadView(
        target=target_state(ref, deployment),
        observed_at=observed_at,
        desired_replicas=_desired(deployment),
        updated_replicas=number(deployment, "status", "updatedReplicas") or 0,
        ready_replicas=number(deployment, "status", "readyReplicas") or 0,
        available_replicas=number(deployment, "status", "availableReplicas") or 0,
        paused=flag(deployment, "spec", "paused"),
        rollout_complete=_rollout_complete(deployment),
        progress_deadline_exceeded=_deadline_exceeded(deployment),
        current_revision=revision_number(deployment) or (revisions[0].number if revisions else 0),
        revisions=revisions,
        pods=tuple(
            sorted(
                (_pod_view(item, hashes) for item in found.pods),
                key=lambda pod: (pod.created_at, pod.name),
                reverse=True,
            )
        ),
        config_maps=tuple(_config_map_view(item, read_at_start) for item in found.config_maps),
        warnings=(*found.unread, *_warnings(found))[:_WARNINGS_LIMIT],
        managed_by=managed_by(deployment),
        opted_out=said(texts(deployment, "metadata", "labels"), texts(deployment, "metadata", "annotations"))
        is False,
    )


def revision_number(workload: JsonObject) -> int | None:
    """The revision that the Deployment controller wrote on a Deployment or ReplicaSet."""
    written = text(workload, "metadata", "annotations", REVISION) or ""
    return int(written) if written.isascii() and written.isdigit() else None


def _desired(deployment: JsonObject) -> int:
    replicas = number(deployment, "spec", "replicas")
    return 1 if replicas is None else replicas


def _revisions(deployment: JsonObject, replica_sets: Iterable[JsonObject]) -> tuple[Revision, ...]:
    numbered = [(number, item) for item in replica_sets if (number := revision_number(item)) is not None]
    numbered.sort(key=lambda pair: pair[0], reverse=True)
    current = revision_number(deployment)
    return tuple(
        _revision(number, item, irreversible=number == current and _irreversible(deployment))
        for number, item in numbered
    )


def _revision(revision: int, replica_set: JsonObject, *, irreversible: bool) -> Revision:
    template = template_of(replica_set)
    return Revision(
        number=revision,
        template_hash=template_hash(template),
        code_hash=code_hash(template),
        config_hash=config_hash(template),
        images=tuple(text(item, "image") or "" for item in objects(template, "spec", "containers")),
        created_at=created_at(replica_set),
        replicas=number(replica_set, "status", "replicas") or 0,
        ready_replicas=number(replica_set, "status", "readyReplicas") or 0,
        irreversible=irreversible or _irreversible(replica_set),
    )


def _irreversible(workload: JsonObject) -> bool:
    places = (mapping(workload, "metadata"), mapping(workload, "spec", "template", "metadata"))
    return any(text(place, "annotations", IRREVERSIBLE) == "true" for place in places)


def _condition(item: JsonObject, wanted: str) -> JsonObject:
    return next((c for c in objects(item, "status", "conditions") if text(c, "type") == wanted), {})


def _deadline_exceeded(deployment: JsonObject) -> bool:
    return text(_condition(deployment, "Progressing"), "reason") == "ProgressDeadlineExceeded"


def _rollout_complete(deployment: JsonObject) -> bool:
    """As `kubectl rollout status` decides it."""
    status = mapping(deployment, "status")
    observed = number(status, "observedGeneration") or 0
    updated = number(status, "updatedReplicas") or 0
    return (
        observed >= (number(deployment, "metadata", "generation") or 0)
        and not _deadline_exceeded(deployment)
        and updated >= _desired(deployment)
        and (number(status, "replicas") or 0) <= updated
        and (number(status, "availableReplicas") or 0) >= updated
    )


def _pod_view(pod: JsonObject, hashes: Mapping[str, str]) -> PodView:
    statuses = [
        *objects(pod, "status", "initContainerStatuses"),
        *objects(pod, "status", "containerStatuses"),
    ]
    waiting = [reason for item in statuses if (reason := text(item, "state", "waiting", "reason"))]
    waiting.sort(key=lambda reason: reason in _NORMAL_WAITING)
    return PodView(
        name=name(pod),
        node=text(pod, "spec", "nodeName"),
        phase=text(pod, "status", "phase") or "Unknown",
        ready=text(_condition(pod, "Ready"), "status") == "True",
        restarts=sum(number(item, "restartCount") or 0 for item in statuses),
        waiting_reason=waiting[0] if waiting else None,
        last_termination_reason=_last_termination(statuses),
        template_hash=hashes.get(controller_uid(pod) or ""),
        created_at=created_at(pod),
    )


def _last_termination(statuses: Iterable[JsonObject]) -> str | None:
    """Why a container of the pod ended last; a clean end of an init container is none."""
    ends: list[tuple[str, str]] = []
    for item in statuses:
        for state in ("state", "lastState"):
            ended = mapping(item, state, "terminated")
            reason = text(ended, "reason")
            if reason is not None and reason != "Completed":
                ends.append((text(ended, "finishedAt") or "", reason))
    return max(ends)[1] if ends else None


def _config_map_view(config_map: JsonObject, read_at_start: frozenset[str]) -> ConfigMapView:
    changed = _last_change(config_map, _SPEC_FIELDS["ConfigMap"])
    return ConfigMapView(
        name=name(config_map),
        content_hash=config_data_hash(config_map),
        resource_version=text(config_map, "metadata", "resourceVersion") or "",
        keys=tuple(sorted({*mapping(config_map, "data"), *mapping(config_map, "binaryData")})),
        changed_at=moment(changed, "time") or moment(config_map, "metadata", "creationTimestamp"),
        read_at_start=name(config_map) in read_at_start,
    )


def _warnings(found: WorkloadObjects) -> tuple[str, ...]:
    """Each distinct warning about the Deployment, its ReplicaSets or pods once, newest first."""
    ours = {uid(item) for item in (found.deployment, *found.replica_sets, *found.pods)}
    told: dict[str, datetime] = {}
    for event in found.events:
        if text(event, "involvedObject", "uid") in ours:
            message = f"{text(event, 'reason') or 'Warning'}: {text(event, 'message') or ''}"
            line = " ".join(redacted(message).split())[:_WARNING_CHARACTERS]
            told[line] = max(told.get(line, _told_at(event)), _told_at(event))
    return tuple(sorted(told, key=lambda line: told[line], reverse=True))


def _told_at(event: JsonObject) -> datetime:
    return (
        moment(event, "series", "lastObservedTime")
        or moment(event, "lastTimestamp")
        or moment(event, "eventTime")
        or created_at(event)
    )
