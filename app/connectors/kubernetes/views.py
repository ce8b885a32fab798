"""Turns API objects into the views that diagnosis, policy and verification look at.

Pure; called by the reader. No value of a ConfigMap, a Secret or an environment
variable gets into a view, only hashes of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from app.agent.actions.target_parts import parts_held
from app.agent.guardrails import target_token
from app.agent.guardrails.opt_out import said
from app.agent.ids import IntentId, JsonObject
from app.agent.models import Action
from app.agent.workload import (
    ConfigMapView,
    ObjectRef,
    PodView,
    Revision,
    TargetState,
    WorkloadView,
)
from app.connectors.kubernetes.fields import (
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
from app.connectors.kubernetes.templates import (
    PREFIX,
    code_hash,
    config_hash,
    config_maps_read_at_start,
    template_fields,
    template_hash,
    template_of,
)
from app.redaction import redacted

MARKER = PREFIX + "intent"
IRREVERSIBLE = PREFIX + "irreversible"
WITHOUT_TRAFFIC = PREFIX + "trust-without-traffic"
REVISION = "deployment.kubernetes.io/revision"

_NORMAL_WAITING = frozenset({"ContainerCreating", "PodInitializing"})
_WHOLE = {"Deployment": (("f:spec",),), "ConfigMap": (("f:data",), ("f:binaryData",))}
_PARTS = {
    target_token.TEMPLATE: (("f:spec", "f:template"),),
    target_token.PAUSED: (("f:spec", "f:paused"),),
    target_token.REPLICAS: (("f:spec", "f:replicas"),),
    target_token.DATA: _WHOLE["ConfigMap"],
}
"""Where `managedFields` says who owns each part of a token."""
_OWN_PARTS = frozenset({"template", "replicas", "paused"})
"""The fields of a Deployment's spec that the token names one by one."""
_WARNINGS_LIMIT = 20
_WARNING_CHARACTERS = 300
_TOKEN_DIGITS = 16
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_OUT_OF_MEMORY, _KILLED = "OOMKilled", 137


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
    """What could not be read, in words; reported among the warnings."""


# ---------------------------------------------------------------- targets


def config_data_hash(config_map: JsonObject) -> str:
    """Over the data alone; binary data joins in where there is some."""
    data = mapping(config_map, "data")
    binary = mapping(config_map, "binaryData")
    return digest({"data": data, "binaryData": binary} if binary else data)


def target_state(ref: ObjectRef, item: JsonObject, action: Action | None = None) -> TargetState:
    """What a decision on this object is bound to; with an action, `changed_by` is about what it changes."""
    held = () if action is None else parts_held(action)
    paths = [path for part in held for path in _PARTS[part]] or _WHOLE.get(ref.kind, ())
    marker = text(item, "metadata", "annotations", MARKER)
    return TargetState(
        ref=ref,
        uid=uid(item),
        resource_version=text(item, "metadata", "resourceVersion") or "",
        token=_token(ref, item),
        marker=IntentId(marker) if marker is not None else None,
        changed_by=text(_last_change(item, paths), "manager"),
    )


def _token(ref: ObjectRef, item: JsonObject) -> str:
    if ref.kind == "ConfigMap":
        return f"{uid(item)}/{config_data_hash(item)}"
    rest = {field: value for field, value in mapping(item, "spec").items() if field not in _OWN_PARTS}
    return target_token.deployment_token(
        uid(item),
        generation=number(item, "metadata", "generation") or 0,
        template=template_hash(template_of(item))[:_TOKEN_DIGITS],
        paused=flag(item, "spec", "paused"),
        replicas=_desired(item),
        rest=digest(rest)[:_TOKEN_DIGITS],
    )


def _last_change(item: JsonObject, paths: Sequence[tuple[str, ...]]) -> JsonObject:
    """The entry of `managedFields` that touched one of `paths` last; empty where none says so.

    Entries of the subresource `scale` carry no time. The writer of a field takes it
    from the others, so an entry without a time that still holds one wrote it last.
    """
    last: JsonObject = {}
    at: datetime | None = None
    whole = ("f:spec",) in paths
    for entry in objects(item, "metadata", "managedFields"):
        if text(entry, "subresource") == "status":
            continue
        fields = mapping(entry, "fieldsV1")
        if not any(path[-1] in mapping(fields, *path[:-1]) for path in paths):
            continue
        time = moment(entry, "time")
        if time is None and not whole:
            return entry
        if not last or (time is not None and (at is None or time >= at)):
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
        total_replicas=number(deployment, "status", "replicas") or 0,
        spec_observed=_spec_observed(deployment),
        paused=flag(deployment, "spec", "paused"),
        rollout_complete=_rollout_complete(deployment),
        progress_deadline_exceeded=_deadline_exceeded(deployment),
        replica_failure=_replica_failure(deployment),
        trusted_without_traffic=text(deployment, "metadata", "annotations", WITHOUT_TRAFFIC) == "true",
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
        warnings=_told(found)[:_WARNINGS_LIMIT],
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
        fields=template_fields(template),
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


def _replica_failure(deployment: JsonObject) -> str | None:
    """Why pods cannot be made: what a ReplicaSet's controller was answered, by quota or admission."""
    condition = _condition(deployment, "ReplicaFailure")
    if text(condition, "status") != "True":
        return None
    said = f"{text(condition, 'reason') or 'ReplicaFailure'}: {text(condition, 'message') or ''}"
    return " ".join(said.split())[:_WARNING_CHARACTERS]


def _spec_observed(deployment: JsonObject) -> bool:
    observed = number(deployment, "status", "observedGeneration") or 0
    return observed >= (number(deployment, "metadata", "generation") or 0)


def _rollout_complete(deployment: JsonObject) -> bool:
    """As `kubectl rollout status` decides it."""
    status = mapping(deployment, "status")
    updated = number(status, "updatedReplicas") or 0
    return (
        _spec_observed(deployment)
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
        image_digests=_image_digests(pod),
    )


def _image_digests(pod: JsonObject) -> tuple[str, ...]:
    """What the tags of its images meant when the node pulled them, by container."""
    found = set()
    for item in objects(pod, "status", "containerStatuses"):
        container, digest = text(item, "name"), _DIGEST.search(text(item, "imageID") or "")
        if container is not None and digest is not None:
            found.add(f"{container}={digest[0]}")
    return tuple(sorted(found))


def _last_termination(statuses: Sequence[JsonObject]) -> str | None:
    """Why a container of the pod ended last: of those that fail now, where some do. A clean end is none."""
    worst = max((_failing(item) for item in statuses), default=0)
    ends: list[tuple[str, str]] = []
    for item in statuses:
        for state in ("state", "lastState"):
            ended = mapping(item, state, "terminated")
            reason = _reason_of_end(ended)
            if reason is not None and _failing(item) == worst:
                ends.append((text(ended, "finishedAt") or "", reason))
    return max(ends)[1] if ends else None


def _failing(status: JsonObject) -> int:
    """2: the container is kept from running; 1: it is not ready; 0: it is."""
    waiting = text(status, "state", "waiting", "reason")
    if waiting is not None and waiting not in _NORMAL_WAITING:
        return 2
    return 0 if flag(status, "ready") else 1


def _reason_of_end(ended: JsonObject) -> str | None:
    """Why a container ended; runtimes also say `OOMKilled` of one that ended with another code.

    Only the kernel's kill (137) is want of memory. An end with 0 is clean.
    """
    reason, code = text(ended, "reason"), number(ended, "exitCode")
    if reason is None or reason == "Completed" or code == 0:
        return None
    return "Error" if reason == _OUT_OF_MEMORY and code not in (None, _KILLED) else reason


def _config_map_view(config_map: JsonObject, read_at_start: frozenset[str]) -> ConfigMapView:
    changed = _last_change(config_map, _WHOLE["ConfigMap"])
    return ConfigMapView(
        name=name(config_map),
        content_hash=config_data_hash(config_map),
        resource_version=text(config_map, "metadata", "resourceVersion") or "",
        keys=tuple(sorted({*mapping(config_map, "data"), *mapping(config_map, "binaryData")})),
        changed_at=moment(changed, "time") or moment(config_map, "metadata", "creationTimestamp"),
        read_at_start=name(config_map) in read_at_start,
    )


def _told(found: WorkloadObjects) -> tuple[str, ...]:
    """What could not be read, that pods cannot be made, and what events warn of; each once."""
    failure = _replica_failure(found.deployment)
    failures = () if failure is None else (failure,)
    return tuple(dict.fromkeys((*found.unread, *failures, *_warnings(found))))


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
