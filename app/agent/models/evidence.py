"""What diagnosis may look at; gathered by the observer."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from app.agent.batch.runs import BatchView
from app.agent.ids import IncidentId, ServiceKey
from app.agent.models.plans import ActionName
from app.agent.models.signals import ChangeKind, Condition, DeployStatus, Signal, Trigger
from app.agent.workload import ConfigRecord, LogPattern, RevisionRecord, WorkloadView


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A recorded change, as a possible cause."""

    kind: ChangeKind
    key: ServiceKey
    at: datetime
    summary: str
    version: str | None = None
    irreversible: bool = False
    status: DeployStatus | None = None
    """The status of the deploy; None for other changes, and in records of older versions."""
    commit_sha: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SliSample:
    """Service level indicators at one instant, from any source."""

    at: datetime
    error_rate: float | None = None
    p95_latency_ms: float | None = None
    request_rate: float | None = None
    """Requests per second."""
    measured: bool = False
    """Measured by the agent's own metric source; False: posted by a sender."""

    @property
    def empty(self) -> bool:
        """No indicator has a value: no data, which is neither health nor failure (promise 8)."""
        return self.error_rate is None and self.p95_latency_ms is None and self.request_rate is None


@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetryHealth:
    """Whether the measuring itself works: many series vanishing together is its fault (promise 8)."""

    known_services: int
    silent_services: int
    """Services that had data before and have none now."""
    source_reachable: bool
    """It answers, and the answer is usable."""
    fault: str | None = None
    """Why it cannot be used, as the connector words it."""

    @property
    def outage(self) -> bool:
        """At least three services, and more than half of all, fell silent; or the source is down."""
        return not self.source_reachable or (
            self.silent_services >= 3 and self.silent_services * 2 > self.known_services
        )

    @property
    def said(self) -> str:
        """The fault, in words."""
        if not self.source_reachable:
            return f"the source of metrics cannot be used: {self.fault or 'it does not answer'}"
        return f"{self.silent_services} of {self.known_services} services fell silent together"


@dataclass(frozen=True, slots=True, kw_only=True)
class Objectives:
    """Above which level an indicator is a symptom, and how much traffic it takes to say so."""

    max_error_rate: float
    max_p95_latency_ms: float
    min_request_rate: float = 0.0
    """Requests per second below which neither of the two says anything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UsualLevel:
    """The baseline of one indicator of one service, in the unit of the indicator."""

    key: ServiceKey
    indicator: str
    median: float
    often: float
    """Every tenth sample is above it."""
    high: float
    """Every fiftieth sample is above it."""
    observed_for: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class DependencyLevels:
    """The service levels of a service that the incident's service calls, directly or not."""

    key: ServiceKey
    sli: tuple[SliSample, ...]
    """Recent samples, oldest first."""
    calls: tuple[ServiceKey, ...]
    """The services that it calls in turn, where known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailingBeside:
    """Another service of the environment whose service levels are outside their objectives too."""

    key: ServiceKey
    since: datetime
    """The first sample outside."""
    unrelated: bool
    """Known not to call the incident's service, directly or not, and not to be called by it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeNeighbours:
    """How the pods of other services fare on the node on which the pods of this one fail."""

    node: str
    failing: tuple[ServiceKey, ...] = ()
    """They fail on it and on no other node, and are healthy elsewhere."""
    healthy: tuple[ServiceKey, ...] = ()
    """They have healthy pods on it, and no failing pod anywhere."""
    beside: tuple[ServiceKey, ...] = ()
    """They fail on other nodes, or everywhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All that diagnosis may look at; gathered by the observer, never fetched by a rule."""

    key: ServiceKey
    at: datetime
    opened_at: datetime
    triggers: tuple[Trigger, ...]
    conditions: tuple[Condition, ...]
    signals: tuple[Signal, ...]
    """The signals of this incident, oldest first."""
    changes: tuple[Change, ...]
    """Changes to any known service inside the look-back window, newest first."""
    workload: WorkloadView | None
    revision_history: tuple[RevisionRecord, ...]
    config_history: tuple[ConfigRecord, ...]
    sli: tuple[SliSample, ...]
    """Recent samples of this service, oldest first; posted and measured ones are marked and never mixed."""
    telemetry: TelemetryHealth | None
    other_open_incidents: tuple[ServiceKey, ...]
    dependencies: tuple[ServiceKey, ...]
    """Services this one calls, where known."""
    failed_actions: tuple[ActionName, ...] = ()
    """Actions already tried on this incident without recovery."""
    unmeasured: str | None = None
    """Why the agent's own metric source gave no usable answer; None: it answered, or none is configured."""
    objectives: Objectives | None = None
    """None: not known, so that every reported symptom is taken for one."""
    dependency_levels: tuple[DependencyLevels, ...] = ()
    """The measurements of the services that this one calls, directly or indirectly."""
    failing_beside: tuple[FailingBeside, ...] = ()
    """Dependencies, and services with a recent incident, that fail at this moment: a bounded number."""
    callers: tuple[ServiceKey, ...] = ()
    """Services that call this one directly, where known."""
    usual: tuple[UsualLevel, ...] = ()
    """The baselines of the service and of its dependencies, where they are known."""
    log_patterns: tuple[LogPattern, ...] = ()
    """Of the failing containers, where the agent may read logs."""
    batch: BatchView | None = None
    """The batch that the incident is about; None where it is about a service."""
    neighbours: NodeNeighbours | None = None
    """Of the node that holds all failing pods; None where they are on several nodes, or it is not known."""
    incident_id: IncidentId | None = None
    """The incident that it was gathered for; None in records of older versions."""
    silenced: bool = False
    """The agent has silenced the alerts of the service for this incident, or has tried to."""
    flag_contents: tuple[ConfigRecord, ...] = ()
    """The present contents of the ConfigMaps that changed and hold feature flags."""
