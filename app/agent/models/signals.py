"""What senders, the poller and the watcher report, and what became of each report."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TypeAlias

import msgspec

from app.agent.identity.people import Sender
from app.agent.ids import IncidentId, ServiceKey, SignalId

METRICS_SOURCE = ServiceKey(environment="telemetry", service="metrics")
CLUSTER_SOURCE = ServiceKey(environment="telemetry", service="cluster")
ALERTS_SOURCE = ServiceKey(environment="telemetry", service="alerts")


_NAMED_CLUSTER = f"{CLUSTER_SOURCE.service}:"
"""Before the name of a cluster; no label of a service can hold a colon."""


class _TelemetrySources:
    """The sources, and the named clusters among them."""

    def __contains__(self, key: object) -> bool:
        if not isinstance(key, ServiceKey) or key.environment != CLUSTER_SOURCE.environment:
            return False
        fixed = key in (METRICS_SOURCE, CLUSTER_SOURCE, ALERTS_SOURCE)
        return fixed or key.service.startswith(_NAMED_CLUSTER)


def cluster_source(name: str) -> ServiceKey:
    """What incidents about the API server of a cluster are filed under; the name may be empty."""
    if not name:
        return CLUSTER_SOURCE
    return ServiceKey(environment=CLUSTER_SOURCE.environment, service=_NAMED_CLUSTER + name)


TELEMETRY_SOURCES: Container[ServiceKey] = _TelemetrySources()
"""What incidents about a source are filed under; no workload and no series belongs to them."""

POLLED = "prometheus"
BURN_ALERT = "ErrorBudgetBurn"
"""The agent's own alert about a service that uses up its error budget too fast."""
UNUSUAL_ALERT = "UnusualLevel"
"""The agent's own alert about a level that is clearly above the baseline of its service."""
"""The source of samples that the agent's own poller reports."""

WATCHED = "kubernetes"
"""The source of the conditions that the agent's own watcher sees."""


class SignalKind(StrEnum):
    DEPLOY = "deploy"
    METRIC = "metric"
    ALERT = "alert"
    CONDITION = "condition"
    CHANGE = "change"


class DeployStatus(StrEnum):
    STARTED = "started"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Trigger(StrEnum):
    """Why an incident is open; the closed list of reasons the agent acts on."""

    DEPLOY_FAILED = "deploy_failed"
    HIGH_ERROR_RATE = "high_error_rate"
    HIGH_LATENCY = "high_latency"
    CRASH_LOOP = "crash_loop"
    PODS_UNAVAILABLE = "pods_unavailable"
    """Pods of the service cannot be created, scheduled, started or reached, or do not get ready."""
    BATCH_FAILED = "batch_failed"
    """A Job failed, also as a run of a CronJob; never a symptom of the service that shares its label."""
    TELEMETRY_OUTAGE = "telemetry_outage"
    """A source that the agent measures by gives no usable answer; never a reason for a remediation."""


class Condition(StrEnum):
    """A fault that the cluster itself reports for a workload."""

    CRASH_LOOP_BACK_OFF = "CrashLoopBackOff"
    IMAGE_PULL_BACK_OFF = "ImagePullBackOff"
    OOM_KILLED = "OOMKilled"
    PROGRESS_DEADLINE_EXCEEDED = "ProgressDeadlineExceeded"
    CREATE_CONTAINER_CONFIG_ERROR = "CreateContainerConfigError"
    """A ConfigMap, a Secret or a key that a container needs does not exist."""
    CREATE_CONTAINER_ERROR = "CreateContainerError"
    """A container cannot be created or its command cannot be run."""
    FAILED_CREATE = "FailedCreate"
    """The API server refuses to create pods: quota, admission, Pod Security."""
    FAILED_SCHEDULING = "FailedScheduling"
    FAILED_MOUNT = "FailedMount"
    NODE_LOST = "NodeLost"
    """The node of a pod no longer reports to the cluster."""
    CONTAINER_TERMINATED = "ContainerTerminated"
    """A container ended, and its node does not start it again."""
    NOT_READY = "NotReady"
    """A pod has not been ready for longer than its service usually takes."""
    JOB_FAILED = "JobFailed"
    """A Job reached its limit of retries or its deadline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deploy:
    """A release of a service changed state, as reported by a pipeline."""

    version: str
    status: DeployStatus
    commit_sha: str | None = None
    irreversible: bool = False
    """The release carries a change that older code cannot run against."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricSample:
    """Service levels at one instant; `None` means no data, never zero."""

    error_rate: float | None = None
    """Share of failed requests, 0..1."""
    p95_latency_ms: float | None = None
    crash_looping: bool | None = None
    request_rate: float | None = None
    """Requests per second behind the other two, where the sender measures them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """One alert as delivered; identity is `identity` + status."""

    name: str
    firing: bool
    fingerprint: str
    starts_at: datetime
    trigger: Trigger | None
    """The trigger of the alert; None if no mapping names it."""
    summary: str = ""
    telemetry: bool = False
    """It says that a rule could not be evaluated: no symptom of the service, and no end of one."""
    cluster: str = ""
    """The cluster that its labels name, where settings do not say that this is the connected one."""
    suppressed: bool = False
    """Its sender muted it (a silence, an inhibition): no reason for an action, and no end of one."""
    labels: tuple[tuple[str, str], ...] | None = None
    """All its labels, sorted, as its sender names them; None where they were not given, or are too many."""
    polled: bool = False
    """It was found, or missed, by reading what its source lists, and not delivered."""
    withheld: bool = False
    """Its end is read from what its source lists: it was delivered, and then silenced by the agent."""
    cycle: str | None = None
    """What links a start to its end where the sender repeats no start time; None: `starts_at` does."""

    @property
    def identity(self) -> str:
        """The same for every delivery about one firing of one alert, its end included."""
        return f"{self.fingerprint.lower()}@{self.cycle or self.starts_at.isoformat()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterCondition:
    """A condition the watcher saw appear on, or clear from, a workload."""

    condition: Condition
    present: bool
    message: str
    revision: int | None = None


class ChangeKind(StrEnum):
    DEPLOY = "deploy"
    CONFIG = "config"
    FLAG = "flag"
    SCALE = "scale"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigChange:
    """Configuration of a workload changed while its images stayed as they were."""

    summary: str
    kind: ChangeKind = ChangeKind.CONFIG
    revision: int | None = None


Payload: TypeAlias = Deploy | MetricSample | Alert | ClusterCondition | ConfigChange


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """One accepted observation. Durable before it is acknowledged (promise 9)."""

    id: SignalId
    kind: SignalKind
    key: ServiceKey
    source: str
    """Where it came from: `http`, `kubernetes`, an alert format, a stream or `POLLED`."""
    observed_at: datetime
    """When the sender says it was true."""
    received_at: datetime
    dedup_key: str
    """Two signals with the same key are one observation, reported twice."""
    stale: bool
    """Too old on arrival to act on: it may open an incident, never lead to a real action."""
    payload: Payload
    sender: Sender | None = None
    """The sender; None for the agent's own observations, and for signals of an older version."""


class DispositionKind(StrEnum):
    OPENED = "opened"
    JOINED = "joined"
    DEDUPLICATED = "deduplicated"
    IGNORED = "ignored"
    PENDING = "pending"
    """A breach not yet sustained; becomes opened, joined, ignored or expired."""
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True, kw_only=True)
class Disposition:
    """What became of a signal, and why."""

    kind: DispositionKind
    reason: str
    incident_id: IncidentId | None = None
    duplicate_of: SignalId | None = None


class PostedSample(msgspec.Struct, frozen=True, gc=False):
    """One metric sample as posted by a sender, before it is a `Signal`; a struct because it is cheap."""

    key: ServiceKey
    observed_at: datetime
    error_rate: float | None
    p95_latency_ms: float | None
    crash_looping: bool | None


class PostedSamples(msgspec.Struct, frozen=True):
    """The samples of one delivery by HTTP, in their order."""

    samples: Sequence[PostedSample]
    received_at: datetime
    stale_after: timedelta
    """Samples that are older on arrival are too old to act on."""
    sender: Sender | None
