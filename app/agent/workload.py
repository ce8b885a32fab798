"""The state of a workload in the cluster: its revisions, pods and ConfigMaps, as read at one instant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import msgspec

from app.agent.gitops.application import Application
from app.agent.ids import IntentId, ServiceKey
from app.agent.routes import RoutesView


class ObjectRef(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Names one object of a cluster.

    A struct, because a record leaves `cluster` out where it is empty.
    """

    kind: str
    """A kind of `app.agent.guardrails.workload_kinds`, or `ConfigMap`."""
    namespace: str
    """Empty for an object of the whole cluster, such as a Node."""
    name: str
    cluster: str = ""
    """One of `CLUSTERS`; empty for the cluster without a name."""

    def beside(self, kind: str, name: str) -> ObjectRef:
        """Another object of the same namespace."""
        return ObjectRef(kind=kind, namespace=self.namespace, name=name, cluster=self.cluster)

    def __str__(self) -> str:
        where = f"{self.namespace}/" if self.namespace else ""
        return f"{self.kind} {where}{self.name}" + (f" in cluster {self.cluster}" if self.cluster else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetState:
    """The state of an object that a decision or a write is bound to.

    `token` changes exactly when someone changes the specification of the object, part by part
    (`app.agent.guardrails.target_token`); `resource_version` also changes with its status.
    """

    ref: ObjectRef
    uid: str
    resource_version: str
    token: str
    marker: IntentId | None = None
    """The intent whose effect this object last carried, as the agent wrote it there."""
    changed_by: str | None = None
    """Field manager of the last change to the target of the action (for a view: to the whole spec)."""


class RevisionHealth(StrEnum):
    """The known facts about a revision of a workload's template."""

    SERVED_WELL = "served_well"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    """One template that a workload ran or runs: a ReplicaSet, or a ControllerRevision."""

    number: int
    template_hash: str
    """Hash over everything in the template that changes what runs."""
    code_hash: str
    """Hash over images, commands, probes and labels, the content of a release."""
    config_hash: str
    """Hash over all the rest of the template, less restarts and marks of controllers."""
    images: tuple[str, ...]
    created_at: datetime
    """Its creation; of the present one, when a person or pipeline brought it back, if later."""
    replicas: int
    ready_replicas: int
    irreversible: bool = False
    """Annotated as not to be rolled back (for example by a schema migration)."""
    migrated_by: str | None = None
    """What migrated data for it (`pod shop-migrate-x7k2p`); None where nothing is known to have."""
    fields: tuple[tuple[str, str], ...] = ()
    """Each field of the template that counts, by name, with a digest of its value."""
    memory_limits: tuple[tuple[str, int], ...] = ()
    """The memory limit of each container that has one, by name, in bytes; sorted."""
    references: frozenset[str] | None = None
    """The objects that its pods need (`ConfigMap a`, `Secret b`, `PersistentVolumeClaim c`), without
    optional ones; None: unknown."""

    @property
    def barrier(self) -> str | None:
        """Why older code must not replace it, in words; None if it may."""
        if self.irreversible:
            return "is marked irreversible"
        return None if self.migrated_by is None else f"migrated data ({self.migrated_by})"


class ContainerRole(StrEnum):
    """The role of a container; the values are the words for it."""

    INIT = "init container"
    SIDECAR = "sidecar"
    """An init container that keeps running with the others (`restartPolicy: Always`)."""
    MAIN = "container"


@dataclass(frozen=True, slots=True, kw_only=True)
class FailingContainer:
    """The container that keeps a pod from serving."""

    name: str
    role: ContainerRole = ContainerRole.MAIN
    message: str = ""
    """The message of the node about it, redacted, at most 300 characters; empty without a message."""
    exit_code: int | None = None
    """The exit code of its last end; None if it never ended."""
    last_ended_at: datetime | None = None
    """When it ended last, also if it was started again since; None if it did not end yet."""
    ended_at: datetime | None = None
    """When it ended, if nothing has started it again; None if it runs or waits to be started."""
    running_since: datetime | None = None
    """Since when it runs without interruption; None if it does not, or its node gives no time."""
    migrates: bool = False
    """An init container whose name, image or command names a migration of data."""


LOG_LINES, LOG_BYTES, LOG_SECONDS = 200, 64 * 1024, 2.0
"""The most that is read of one container's log, from its end, and the most time that it takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogTail:
    """The last lines of a container, oldest first; never kept."""

    lines: tuple[str, ...]
    previous: bool
    """Of the container that ended, not of the one that was started in its place."""

    @classmethod
    def within_bounds(cls, lines: Sequence[str], *, previous: bool) -> LogTail:
        """The last of these lines that fit; the end of a line that is too long."""
        kept = "\n".join(lines[-LOG_LINES:]).encode()[-LOG_BYTES:]
        return cls(lines=tuple(kept.decode(errors="ignore").splitlines()), previous=previous)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPattern:
    """The patterns of the last lines of a container; never a line itself."""

    pod: str
    container: str
    previous: bool
    """Of the container that ended, not of the one that was started in its place."""
    pattern: str
    count: int
    """The number of lines."""
    credentials_refused: bool = False
    """A line says that another system refused the credentials of this one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WarningView:
    """One Warning event about an object, repeats folded."""

    reason: str
    message: str
    """Redacted, at most 300 characters."""
    count: int
    """How often it was reported; at least 1."""
    at: datetime
    """When it was reported last."""


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
    failing: FailingContainer | None = None
    """The container that keeps it from serving; None for a pod that serves, or whose node reports none."""
    ready_changed_at: datetime | None = None
    """When it became ready or stopped being ready; None where the cluster does not say."""
    unschedulable: str | None = None
    """Why no node takes it, in the scheduler's words; None if it is scheduled or not judged yet."""
    node_lost: bool = False
    """Its node no longer reports to the cluster: the state of its containers is unknown."""
    warnings: tuple[WarningView, ...] = ()
    """The Warning events about it, newest first."""
    evicted: str | None = None
    """Why its node evicted it, in the node's words; None if it was not evicted."""
    ends_by: datetime | None = None
    """When it must have ended, its grace period over; None unless it is being deleted."""
    migrated: tuple[str, ...] = ()
    """Its init containers that name a migration of data and ended without an error."""
    uid: str = ""
    """Another pod of the same name has a different one; empty if unknown."""
    containers: tuple[str, ...] = ()
    """Its containers by name, without init containers and sidecars, as far as its node reported them."""

    @property
    def leftover(self) -> bool:
        """Evicted, completed or failed: its controller has replaced it, and it does not count as evidence."""
        return self.phase in ("Failed", "Succeeded")


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
class AutoscalerView:
    """An object that sets the replicas or the resources of a workload by itself."""

    kind: str
    """`HorizontalPodAutoscaler`, `VerticalPodAutoscaler` or `ScaledObject`."""
    name: str
    minimum: int | None = None
    """The least replicas it sets; None where it does not set replicas."""
    maximum: int | None = None
    """The most replicas it sets; None where it does not set replicas."""
    wanted: int | None = None
    """The replicas it wants now; None where it does not say."""

    @property
    def sets_replicas(self) -> bool:
        """Whether another writer of the replicas is overridden by it."""
        return self.maximum is not None

    @property
    def at_maximum(self) -> bool:
        """It is at its maximum number of replicas: the load may exceed the capacity that it can add."""
        return self.maximum is not None and self.wanted is not None and self.wanted >= self.maximum

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleChange:
    """Who set the replicas of a workload last, as far as the object says."""

    by: str | None
    """The field manager; None: it was set to 0 through the subresource `scale`, which then keeps no name."""
    at: datetime | None
    """When; None where the cluster keeps no time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutProgress:
    """How far the controller of Argo Rollouts has come with an update, as the Rollout itself says."""

    stable: bool
    """No update is running: the current template is the stable one."""
    aborted: bool = False
    """The update was aborted, by a person or after a failed analysis; the stable template serves."""
    waits: str | None = None
    """Why it stands at a step (`CanaryPauseStep`, `BlueGreenPause`); None if it continues."""
    analysis: str | None = None
    """An analysis that failed, in the words of its AnalysisRun; None if none did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseRecord:
    """One revision of a release, as its tool recorded it."""

    revision: int
    status: str
    """In the tool's words: `deployed`, `failed`, `pending-upgrade`."""
    begun_at: datetime
    """When the revision was begun: from then on it can be a cause."""
    at: datetime
    """When the status was written: after the change, for `superseded` with the next revision."""

    @property
    def pending(self) -> bool:
        """The tool has begun and not finished, or has died."""
        return self.status.startswith("pending-")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadView:
    """One workload of any kind with what hangs on it, read at `observed_at`."""

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
    """The controller that owns this workload and reverts changes to it: `argocd`, `flux`, or kind and name
    of an object (`Canary shop`); None if none is known."""
    managed_as: str | None = None
    """What its owner wrote on it to find it again: a tracking id or an instance; None if nothing."""
    application: Application | None = None
    """The application of a GitOps controller that owns it, where one is connected and was read."""
    released_by: str | None = None
    """What released it without watching it since (`Helm release shop`): a rollback is drift to it."""
    release_records: tuple[ReleaseRecord, ...] = ()
    """The revisions of that release, newest first, as far as the agent may read them."""
    autoscalers: tuple[AutoscalerView, ...] = ()
    """The autoscalers of its replicas or resources, as far as the agent may read them."""
    slo_annotations: tuple[tuple[str, str], ...] = ()
    """The annotations that set objectives of its service, as they are written."""
    scaled: ScaleChange | None = None
    """Who set its replicas last; None where the object does not say."""
    served_by: str | None = None
    """The object that runs the pods in its place (`Rollout shop`), while it is scaled to 0 for that."""
    progress_deadline_seconds: int = 600
    opted_out: bool = False
    """Annotated by its owners as an opt-out."""
    trusted_without_traffic: bool = False
    """Annotated by its owners: it receives no requests, and is trusted only by its pods."""
    total_replicas: int | None = None
    """Pods of every revision; None if unknown."""
    spec_observed: bool = True
    """The controller has seen the newest specification: the numbers are about it."""
    replica_failure: str | None = None
    """Why the cluster refuses to make wanted pods (`FailedCreate: ...`); None where it does not."""
    replica_failure_since: datetime | None = None
    """Since when; None where the cluster does not say."""
    start_seconds: int = 0
    """The time that its probes grant a pod before it counts as failed, in seconds."""
    replaced_by_hand: bool = False
    """Its pods take a new template only when someone deletes them (update strategy `OnDelete`)."""
    partition: int = 0
    """Pods with a lower ordinal keep their template during a rollout (a StatefulSet's `partition`)."""
    one_by_one: bool = False
    """Its controller waits for each pod to be ready before it replaces or makes the next one."""
    progress: RolloutProgress | None = None
    """Of an Argo Rollout; None for other kinds."""
    own_cordons: tuple[str, ...] = ()
    """The nodes that the agent cordoned; read only while a pod cannot be scheduled."""
    routes: RoutesView | None = None
    """What carries requests to its pods; None where it was not read."""
    calls: tuple[ServiceKey, ...] = ()
    """What its environment names as the address of a service; some may be none."""
    claims_deleted: bool = False
    """Removing replicas deletes their PersistentVolumeClaims, and with them their data."""


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
