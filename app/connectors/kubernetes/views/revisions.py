"""The revisions of a Deployment, and how far its rollout has come. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from app.agent.ids import JsonObject
from app.agent.workload import Revision
from app.connectors.kubernetes.fields import condition_of, created_at, mapping, number, objects, text
from app.connectors.kubernetes.templates import (
    PREFIX,
    code_hash,
    config_hash,
    template_fields,
    template_hash,
    template_of,
)
from app.connectors.kubernetes.views.references import references
from app.connectors.kubernetes.views.targets import desired_replicas

IRREVERSIBLE = PREFIX + "irreversible"
REVISION = "deployment.kubernetes.io/revision"


def revision_number(workload: JsonObject) -> int | None:
    """The revision that the Deployment controller wrote on a Deployment or ReplicaSet."""
    written = text(workload, "metadata", "annotations", REVISION) or ""
    return int(written) if written.isascii() and written.isdigit() else None


def revisions_of(deployment: JsonObject, replica_sets: Iterable[JsonObject]) -> tuple[Revision, ...]:
    """The revisions that ReplicaSets hold, newest first."""
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
        references=references(template),
    )


def _irreversible(workload: JsonObject) -> bool:
    places = (mapping(workload, "metadata"), mapping(workload, "spec", "template", "metadata"))
    return any(text(place, "annotations", IRREVERSIBLE) == "true" for place in places)


def deadline_exceeded(deployment: JsonObject) -> bool:
    """Whether the rollout made no progress within its deadline."""
    return text(condition_of(deployment, "Progressing"), "reason") == "ProgressDeadlineExceeded"


def spec_observed(deployment: JsonObject) -> bool:
    """Whether the controller has seen the newest specification."""
    observed = number(deployment, "status", "observedGeneration") or 0
    return observed >= (number(deployment, "metadata", "generation") or 0)


def rollout_complete(deployment: JsonObject) -> bool:
    """As `kubectl rollout status` decides it."""
    status = mapping(deployment, "status")
    updated = number(status, "updatedReplicas") or 0
    return (
        spec_observed(deployment)
        and not deadline_exceeded(deployment)
        and updated >= desired_replicas(deployment)
        and (number(status, "replicas") or 0) <= updated
        and (number(status, "availableReplicas") or 0) >= updated
    )
