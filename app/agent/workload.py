"""What the cluster shows of a workload: its state, revisions, pods and ConfigMaps, as read at one instant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from app.agent.ids import IntentId, ServiceKey


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectRef:
    """Names one object of a cluster."""

    kind: str
    """`Deployment` or `ConfigMap`."""
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetState:
    """The state of an object that a decision or a write is bound to.

    `token` changes exactly when someone changes what the object asks for, part by
    part (`app.agent.guardrails.target_token`); `resource_version` also changes with its status.
    """

    ref: ObjectRef
    uid: str
    resource_version: str
    token: str
    marker: IntentId | None = None
    """The intent whose effect this object last carried, as the agent wrote it there."""
    changed_by: str | None = None
    """Field manager of the last change to what the action is about (for a view: to the whole spec)."""


class RevisionHealth(StrEnum):
    """What the agent knows about a revision of a workload's template."""

    SERVED_WELL = "served_well"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    """One template that a workload ran or runs (a ReplicaSet of a Deployment)."""

    number: int
    template_hash: str
    """Hash over everything in the template that changes what runs."""
    code_hash: str
    """Hash over images, commands, probes and labels: what a release ships."""
    config_hash: str
    """Hash over all the rest of the template, less restarts and marks of controllers."""
    images: tuple[str, ...]
    created_at: datetime
    replicas: int
    ready_replicas: int
    irreversible: bool = False
    """Annotated as not to be rolled back (for example by a schema migration)."""
    fields: tuple[tuple[str, str], ...] = ()
    """Each field of the template that counts, by name, with a digest of its value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodView:
    """One pod as far as diagnosis and verification care."""

    name: str
    node: str | None
    phase: str
    ready: bool
    restarts: int
    waiting_reason: str | None
    last_termination_reason: str | None
    template_hash: str | None
    """Equals `Revision.template_hash` of the revision it belongs to."""
    created_at: datetime
    image_digests: tuple[str, ...] = ()
    """`container=sha256:...` of the images that it runs, sorted, as far as the node reported them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigMapView:
    """A ConfigMap that the workload's template refers to. Values never leave the connector."""

    name: str
    content_hash: str
    resource_version: str
    keys: tuple[str, ...]
    changed_at: datetime | None
    """When its data last changed, where the object says."""
    read_at_start: bool = False
    """Containers take it into their environment as they start: running ones do not see a change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadView:
    """One Deployment with what hangs on it, read at `observed_at`."""

    target: TargetState
    observed_at: datetime
    desired_replicas: int
    updated_replicas: int
    ready_replicas: int
    available_replicas: int
    paused: bool
    rollout_complete: bool
    """The controller has seen the newest spec, and only its pods run, all available."""
    progress_deadline_exceeded: bool
    current_revision: int
    revisions: tuple[Revision, ...]
    """Newest first; the current one is the first."""
    pods: tuple[PodView, ...]
    config_maps: tuple[ConfigMapView, ...]
    warnings: tuple[str, ...] = ()
    """Recent Warning events, `reason: message`, newest first, at most twenty."""
    managed_by: str | None = None
    """A GitOps controller that owns this workload, where labels or annotations say so."""
    opted_out: bool = False
    """Annotated by its owners so that the agent leaves it alone."""
    trusted_without_traffic: bool = False
    """Annotated by its owners: it receives no requests, and is trusted by its pods alone."""
    total_replicas: int | None = None
    """Pods of every revision; None where it is not known."""
    spec_observed: bool = True
    """The controller has seen the newest specification: the numbers are about it."""
    replica_failure: str | None = None
    """Why the cluster refuses to make wanted pods (`FailedCreate: ...`); None where it does not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RevisionRecord:
    """What the agent remembers of a template it has seen: from history that outlives ReplicaSets."""

    key: ServiceKey
    template_hash: str
    number: int
    health: RevisionHealth
    seen_at: datetime
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigRecord:
    """A version of a ConfigMap that was in force, kept so that it can be restored."""

    key: ServiceKey
    name: str
    content_hash: str
    data: Mapping[str, str]
    health: RevisionHealth
    seen_at: datetime
