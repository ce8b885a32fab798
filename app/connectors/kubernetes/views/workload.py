"""One Deployment with what hangs on it. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from app.agent.guardrails.opt_out import said
from app.agent.ids import JsonObject
from app.agent.workload import ObjectRef, PodView, WarningView, WorkloadView
from app.connectors.kubernetes.fields import condition_of, flag, moment, number, text, texts, uid
from app.connectors.kubernetes.templates import PREFIX, config_maps_read_at_start, template_hash, template_of
from app.connectors.kubernetes.views.events import lines_of, replica_failure, warnings_by_object
from app.connectors.kubernetes.views.owners import (
    autoscalers_of,
    managed_as,
    managed_by,
    released_by,
    scaled,
    served_by,
)
from app.connectors.kubernetes.views.pods import pod_view
from app.connectors.kubernetes.views.references import start_seconds
from app.connectors.kubernetes.views.revisions import (
    deadline_exceeded,
    revision_number,
    revisions_of,
    rollout_complete,
    spec_observed,
)
from app.connectors.kubernetes.views.targets import config_map_view, desired_replicas, target_state

WITHOUT_TRAFFIC = PREFIX + "trust-without-traffic"
_WARNINGS_LIMIT = 20
_PROGRESS_DEADLINE_SECONDS = 600


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
    autoscalers: tuple[JsonObject, ...] = ()
    """Autoscalers of the namespace, each with its kind."""
    stand_ins: tuple[JsonObject, ...] = ()
    """Objects of the namespace that may run a Deployment's pods in its place, each with its kind."""


def workload_view(found: WorkloadObjects, ref: ObjectRef, observed_at: datetime) -> WorkloadView:
    """One Deployment with what hangs on it."""
    deployment = found.deployment
    template = template_of(deployment)
    revisions = revisions_of(deployment, found.replica_sets)
    events = warnings_by_object(found.events)
    read_at_start = config_maps_read_at_start(template)
    stands_in = served_by(deployment, found.stand_ins)
    deadline = number(deployment, "spec", "progressDeadlineSeconds")
    return WorkloadView(
        target=target_state(ref, deployment),
        observed_at=observed_at,
        desired_replicas=desired_replicas(deployment),
        updated_replicas=number(deployment, "status", "updatedReplicas") or 0,
        ready_replicas=number(deployment, "status", "readyReplicas") or 0,
        available_replicas=number(deployment, "status", "availableReplicas") or 0,
        total_replicas=number(deployment, "status", "replicas") or 0,
        spec_observed=spec_observed(deployment),
        paused=flag(deployment, "spec", "paused"),
        rollout_complete=rollout_complete(deployment),
        progress_deadline_exceeded=deadline_exceeded(deployment),
        progress_deadline_seconds=_PROGRESS_DEADLINE_SECONDS if deadline is None else deadline,
        replica_failure=replica_failure(deployment),
        replica_failure_since=moment(condition_of(deployment, "ReplicaFailure"), "lastTransitionTime"),
        start_seconds=start_seconds(template),
        trusted_without_traffic=text(deployment, "metadata", "annotations", WITHOUT_TRAFFIC) == "true",
        current_revision=revision_number(deployment) or (revisions[0].number if revisions else 0),
        revisions=revisions,
        pods=_pods(found, events),
        config_maps=tuple(config_map_view(item, read_at_start) for item in found.config_maps),
        warnings=_lines(found, events)[:_WARNINGS_LIMIT],
        managed_by=managed_by(deployment) or stands_in,
        managed_as=managed_as(deployment),
        released_by=released_by(deployment),
        autoscalers=autoscalers_of(ref, desired_replicas(deployment), found.autoscalers),
        scaled=scaled(deployment, found.replica_sets),
        served_by=stands_in if desired_replicas(deployment) == 0 else None,
        opted_out=said(texts(deployment, "metadata", "labels"), texts(deployment, "metadata", "annotations"))
        is False,
    )


def _pods(found: WorkloadObjects, events: dict[str, tuple[WarningView, ...]]) -> tuple[PodView, ...]:
    """The pods, youngest first."""
    hashes = {uid(item): template_hash(template_of(item)) for item in found.replica_sets}
    views = (pod_view(item, hashes, events.get(uid(item), ())) for item in found.pods)
    return tuple(sorted(views, key=lambda pod: (pod.created_at, pod.name), reverse=True))


def _lines(found: WorkloadObjects, events: dict[str, tuple[WarningView, ...]]) -> tuple[str, ...]:
    """What could not be read, that pods cannot be made, and what events warn of; each once."""
    failure = replica_failure(found.deployment)
    failures = () if failure is None else (failure,)
    return tuple(dict.fromkeys((*found.unread, *failures, *lines_of(_ours(found, events)))))


def _ours(found: WorkloadObjects, events: dict[str, tuple[WarningView, ...]]) -> Iterator[WarningView]:
    """The warnings about the Deployment, its ReplicaSets and its pods."""
    for item in (found.deployment, *found.replica_sets, *found.pods):
        yield from events.get(uid(item), ())
