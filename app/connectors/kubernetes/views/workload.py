"""One workload with what hangs on it. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from app.agent.guardrails.opt_out import said
from app.agent.ids import JsonObject, ServiceKey
from app.agent.services.annotated import SLO_PREFIX
from app.agent.workload import ObjectRef, PodView, ReleaseRecord, WarningView, WorkloadView
from app.connectors.kubernetes.api import Kind
from app.connectors.kubernetes.fields import flag, kind_of, number, objects, text, texts, uid
from app.connectors.kubernetes.routes.view import RoutedWorkload, RouteObjects, routes_view
from app.connectors.kubernetes.templates import PREFIX, config_maps_read_at_start, template_of
from app.connectors.kubernetes.views.events import (
    PodsRefused,
    lines_of,
    pods_refused,
    sentence,
    warnings_by_object,
)
from app.connectors.kubernetes.views.owners import (
    autoscalers_of,
    managed_as,
    managed_by,
    released_by,
    scaled,
    served_by,
)
from app.connectors.kubernetes.views.pods import pod_view
from app.connectors.kubernetes.views.progress import rollout_progress
from app.connectors.kubernetes.views.references import start_seconds
from app.connectors.kubernetes.views.revisions import (
    counts_of,
    current_number,
    deadline_exceeded,
    revision_hashes,
    revision_of_pod,
    revisions_of,
    rollout_complete,
    spec_observed,
)
from app.connectors.kubernetes.views.targets import (
    config_map_view,
    desired_replicas,
    target_state,
    update_strategy,
)

WITHOUT_TRAFFIC = PREFIX + "trust-without-traffic"
_WARNINGS_LIMIT = 20
_PROGRESS_DEADLINE_SECONDS = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadObjects:
    """Everything that was read about one workload."""

    workload: JsonObject
    revisions: tuple[JsonObject, ...]
    """The ReplicaSets or ControllerRevisions that it controls."""
    pods: tuple[JsonObject, ...]
    """Only those that it controls, by a ReplicaSet where it has some."""
    config_maps: tuple[JsonObject, ...]
    events: tuple[JsonObject, ...]
    """Warning events of the namespace."""
    unread: tuple[str, ...] = ()
    """What could not be read, in words; reported among the warnings."""
    autoscalers: tuple[JsonObject, ...] = ()
    """Autoscalers of the namespace, each with its kind."""
    stand_ins: tuple[JsonObject, ...] = ()
    """Objects of the namespace that may run a workload's pods in its place, each with its kind."""
    own_cordons: tuple[str, ...] = ()
    """The nodes that the agent cordoned, as far as they were asked for."""
    release_records: tuple[ReleaseRecord, ...] = ()
    """The revisions of its Helm release, as far as they were asked for."""
    migrations: tuple[JsonObject, ...] = ()
    """The pods of Jobs of the namespace that name a migration of data."""
    routes: RouteObjects | None = None
    """What carries requests in the namespace; None where it was not asked for."""
    service: str = ""
    """The service that the workload is."""
    calls: tuple[ServiceKey, ...] = ()
    """What its environment names as the address of a service."""


def workload_view(found: WorkloadObjects, ref: ObjectRef, observed_at: datetime) -> WorkloadView:
    """One workload with what hangs on it."""
    workload = found.workload
    template, counts = template_of(workload), counts_of(workload)
    events = warnings_by_object(found.events)
    pods = _pods(found, events)
    revisions = revisions_of(workload, found.revisions, pods, found.migrations)
    read_at_start = config_maps_read_at_start(template)
    stands_in = served_by(workload, found.stand_ins)
    deadline = number(workload, "spec", "progressDeadlineSeconds")
    refused = pods_refused(found.events, workload, missing=counts.desired - counts.total, at=observed_at)
    current = current_number(workload, found.revisions)
    return WorkloadView(
        target=target_state(ref, workload),
        observed_at=observed_at,
        desired_replicas=counts.desired,
        updated_replicas=counts.updated,
        ready_replicas=counts.ready,
        available_replicas=counts.available,
        total_replicas=counts.total,
        spec_observed=spec_observed(workload),
        paused=flag(workload, "spec", "paused") or bool(objects(workload, "status", "pauseConditions")),
        rollout_complete=rollout_complete(workload),
        progress_deadline_exceeded=deadline_exceeded(workload),
        progress_deadline_seconds=_PROGRESS_DEADLINE_SECONDS if deadline is None else deadline,
        replica_failure=None if refused is None else refused.why,
        replica_failure_since=None if refused is None else refused.since,
        start_seconds=start_seconds(template),
        trusted_without_traffic=text(workload, "metadata", "annotations", WITHOUT_TRAFFIC) == "true",
        current_revision=current or (revisions[0].number if revisions else 0),
        revisions=revisions,
        pods=pods,
        config_maps=tuple(config_map_view(item, read_at_start) for item in found.config_maps),
        warnings=_lines(found, events, refused)[:_WARNINGS_LIMIT],
        managed_by=managed_by(workload) or stands_in,
        managed_as=managed_as(workload),
        released_by=released_by(workload),
        release_records=found.release_records,
        autoscalers=autoscalers_of(ref, desired_replicas(workload), found.autoscalers),
        slo_annotations=tuple(
            (name, value)
            for name, value in sorted(texts(workload, "metadata", "annotations").items())
            if name.startswith(SLO_PREFIX)
        ),
        scaled=scaled(workload, found.revisions),
        served_by=stands_in if counts.desired == 0 else None,
        opted_out=said(texts(workload, "metadata", "labels"), texts(workload, "metadata", "annotations"))
        is False,
        replaced_by_hand=text(update_strategy(workload), "type") == "OnDelete",
        partition=number(update_strategy(workload), "rollingUpdate", "partition") or 0,
        one_by_one=_one_by_one(workload),
        claims_deleted=_claims_deleted(workload),
        calls=found.calls,
        own_cordons=found.own_cordons,
        routes=None
        if found.routes is None
        else routes_view(
            found.routes,
            RoutedWorkload(workload=workload, service=found.service, pods=found.pods),
            observed_at,
        ),
        progress=rollout_progress(workload) if kind_of(workload) == Kind.ROLLOUT else None,
    )


def _one_by_one(workload: JsonObject) -> bool:
    parallel = text(workload, "spec", "podManagementPolicy") == "Parallel"
    return kind_of(workload) == Kind.STATEFUL_SET and not parallel


def _claims_deleted(workload: JsonObject) -> bool:
    return text(workload, "spec", "persistentVolumeClaimRetentionPolicy", "whenScaled") == "Delete"


def _pods(found: WorkloadObjects, events: dict[str, tuple[WarningView, ...]]) -> tuple[PodView, ...]:
    """The pods, youngest first."""
    hashes = revision_hashes(found.revisions)
    views = (pod_view(pod, revision_of_pod(pod, hashes), events.get(uid(pod), ())) for pod in found.pods)
    return tuple(sorted(views, key=lambda pod: (pod.created_at, pod.name), reverse=True))


def _lines(
    found: WorkloadObjects, events: dict[str, tuple[WarningView, ...]], refused: PodsRefused | None
) -> tuple[str, ...]:
    """What could not be read, that pods cannot be made, and what events warn of; each once."""
    failures = () if refused is None else (refused.why,)
    degraded = _degraded(found.workload)
    return tuple(dict.fromkeys((*found.unread, *degraded, *failures, *lines_of(_ours(found, events)))))


def _degraded(workload: JsonObject) -> tuple[str, ...]:
    """Why a Rollout was given up, aborted or waits, and which analysis failed, as its controller says."""
    found = []
    if text(workload, "status", "phase") == "Degraded":
        found.append(f"Degraded: {text(workload, 'status', 'message') or 'no reason given'}")
    if kind_of(workload) == Kind.ROLLOUT:
        progress = rollout_progress(workload)
        found += [one for one in (progress.analysis,) if one is not None]
        found += [f"Paused: {progress.waits}"] if progress.waits is not None else []
    return tuple(sentence(one) for one in found)


def _ours(found: WorkloadObjects, events: dict[str, tuple[WarningView, ...]]) -> Iterator[WarningView]:
    """The warnings about the workload, its revisions and its pods."""
    for item in (found.workload, *found.revisions, *found.pods):
        yield from events.get(uid(item), ())
