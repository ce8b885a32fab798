"""Observe: collect the evidence of an incident.

The observer is the only stage that reads external systems for diagnosis; rules receive
an `Evidence` and do no I/O. Data that cannot be read stays missing and is reported as
missing (promise 8).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from app.agent.batch.runs import BatchView, batch_named
from app.agent.evidence.baselines.learned import Baselines
from app.agent.evidence.cluster.release_records import with_releases
from app.agent.evidence.conditions import conditions_of
from app.agent.evidence.releases import once
from app.agent.evidence.syncs import with_syncs
from app.agent.guardrails.limits.clusters import Clusters
from app.agent.ids import ServiceKey
from app.agent.intents import has_silenced, tried
from app.agent.models import (
    TELEMETRY_SOURCES,
    Change,
    Condition,
    DependencyLevels,
    Evidence,
    FailingBeside,
    Incident,
    IncidentRecord,
    Objectives,
    Observation,
    SliSample,
    TelemetryHealth,
)
from app.agent.observation.contents import flag_contents, log_patterns
from app.agent.observation.missing import or_missing
from app.agent.observation.named_calls import failing_callees
from app.agent.observation.neighbours import neighbours_of
from app.agent.ports.cluster import BatchReader, ClusterReader, ContainerLogs
from app.agent.ports.gitops import ApplicationReader
from app.agent.ports.metrics import MetricSource
from app.agent.ports.store import Store
from app.agent.ports.store.incidents import IncidentFilter
from app.agent.services.annotated import AnnotatedServices
from app.agent.services.calls import Calls, nearest, unrelated
from app.agent.services.terms import NO_SERVICES, ServiceCatalogue, objectives_of, with_dependencies
from app.agent.workload import WorkloadView
from app.errors import AgentError, PermanentError

_SLI_STEP = timedelta(seconds=15)
_MAX_SIGNALS = 200
_OTHERS_SHOWN = 50
"""The maximum number of other services with an open incident that are read."""

_DEPENDENCIES_MEASURED = 8
"""The maximum number of dependencies whose service levels are read for a diagnosis."""

_BESIDE_LOOKED_AT = 16
"""The maximum number of recent incidents of other services whose breaches are read."""

RELEASES_KNOWN = timedelta(days=7)
"""How far back reports of a release are looked for that is reported again now."""

NO_CLUSTER = "no cluster connected"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """Evidence, and the missing data in words for the timeline."""

    evidence: Evidence
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Observer:
    """Reads cluster, metrics and store for one incident."""

    store: Store
    reader: ClusterReader | None
    metrics: MetricSource | None
    lookback: timedelta
    dependencies: Mapping[ServiceKey, tuple[ServiceKey, ...]]
    objectives: Objectives | None = None
    """The objectives that define a symptom; None: every reported one is a symptom."""
    services: ServiceCatalogue = NO_SERVICES
    """Services with their own objectives or dependencies."""
    baselines: Baselines = field(default_factory=Baselines)
    """The baselines of the services, if this process measures them."""
    annotated: AnnotatedServices | None = None
    """Takes in the objectives that annotations of a workload set."""
    logs: ContainerLogs | None = None
    """Reads the logs of failing containers; None: not allowed."""
    batches: BatchReader | None = None
    """Reads Jobs and CronJobs; None: failed Jobs are not watched."""
    applications: ApplicationReader | None = None
    """Reads the application of a GitOps controller that owns the workload."""
    clusters: Clusters = field(default_factory=Clusters)
    """Which cluster each environment is in."""
    view: ClusterReader | None = None
    """Reads other services from the cluster view, without a request each; None: `reader` does."""

    async def gather(self, record: IncidentRecord, now: datetime) -> Gathered:
        """All evidence for a diagnosis at `now`."""
        incident = record.incident
        key = incident.key
        missing: list[str] = []
        # An API server that does not answer now is asked again, not planned without.
        workload = await self.workload(key, missing, tolerated=PermanentError)
        batch = await self.batch(key, missing)
        if workload is None and batch is None and not missing:
            missing.append(_unmapped(key))
        if workload is not None:
            workload = await self._with_application(workload, missing)
            missing.extend(() if self.annotated is None else self.annotated.problems(key))
        unmeasured: list[str] = []
        signals = await self.store.signals.of_incident(incident.id, _MAX_SIGNALS)
        earliest = min((s.observed_at for s in signals), default=incident.opened_at)
        calls = await self._calls(incident, workload, missing)
        dependencies = calls.get(key, ())
        beside = await self.store.incidents.open_beside(key, dependencies, _OTHERS_SHOWN)
        sli = await self._sli_history(key, now, unmeasured)
        telemetry = await self.telemetry(key, now, missing)
        missing.extend(unmeasured)
        levels = () if unmeasured else await self._dependency_levels(key, now, missing, calls)
        since = min(earliest, incident.opened_at) - self.lookback
        evidence = Evidence(
            key=key,
            incident_id=incident.id,
            silenced=has_silenced(record),
            at=now,
            opened_at=incident.opened_at,
            triggers=incident.triggers,
            conditions=conditions_of(signals, workload),
            signals=signals,
            changes=await self._with_recorded(key, workload, since, dependencies),
            workload=workload,
            batch=batch,
            revision_history=await self.store.history.revisions(key),
            config_history=await self.store.history.configs(key),
            sli=sli,
            telemetry=telemetry,
            other_open_incidents=tuple(
                each for each in (*beside.named, *beside.others) if each not in TELEMETRY_SOURCES
            ),
            dependencies=dependencies,
            failed_actions=tried(record),
            unmeasured="; ".join(unmeasured) or None,
            objectives=self._objectives_of(key),
            dependency_levels=levels,
            usual=self.baselines.usual((key, *(one.key for one in levels))),
            failing_beside=await self._failing_beside(key, now, calls),
            callers=tuple(sorted(one for one, callees in self.calls.items() if key in callees)),
        )
        evidence = replace(
            evidence,
            log_patterns=await log_patterns(self.logs, self.batches, evidence, missing),
            flag_contents=await flag_contents(self.reader, evidence, missing),
            neighbours=await neighbours_of(evidence, self.view or self.reader, self.clusters),
        )
        return Gathered(evidence=evidence, missing=tuple(missing))

    async def _with_recorded(
        self,
        key: ServiceKey,
        workload: WorkloadView | None,
        since: datetime,
        dependencies: tuple[ServiceKey, ...],
    ) -> tuple[Change, ...]:
        """The reported changes, with those recorded by the owner or the release tool of the workload."""
        reported = await self._changes(key, since, dependencies)
        application = workload.application if workload is not None else None
        return with_releases(with_syncs(reported, key, application, since), key, workload, since)

    @property
    def calls(self) -> Mapping[ServiceKey, tuple[ServiceKey, ...]]:
        """The calls between services as they are known now."""
        return with_dependencies(self.dependencies, self.services)

    async def _calls(self, incident: Incident, workload: WorkloadView | None, missing: list[str]) -> Calls:
        """The known calls; without declared calls, those to failing services that the environment names.

        `app.agent.observation.named_calls` selects them.
        """
        key, known, reader = incident.key, self.calls, self.view or self.reader
        if key in known or workload is None or not workload.calls or reader is None:
            return known
        services = await or_missing(reader.services(), "list of services", missing) or ()
        named = [one for one in workload.calls if one in services and one != key]
        called = await failing_callees(key, named, incident.opened_at, known, reader, self.store)
        return {**known, key: called} if called else known

    def _objectives_of(self, key: ServiceKey) -> Objectives | None:
        usual = self.objectives
        return None if usual is None else objectives_of(self.services, key, usual)

    async def look(self, key: ServiceKey, now: datetime) -> Observation:
        """One observation of a service, for verification and the historian."""
        missing: list[str] = []
        levels = await self.store.signals.levels(key)
        workload = await self.workload(key, missing)
        batch = await self.batch(key, missing)
        gone = workload is None and batch is None and not missing
        looked = self.reader is not None and key not in TELEMETRY_SOURCES
        unseen = "; ".join(missing) or None if looked else None
        unmeasured: list[str] = []
        sli = await self.sli(key, now, unmeasured)
        missing.extend(unmeasured)
        return Observation(
            at=now,
            sli=sli,
            unmeasured="; ".join(unmeasured) or None,
            unseen=unseen,
            workload=workload,
            batch=batch,
            gone=gone,
            telemetry=await self.telemetry(key, now, missing),
            reported_conditions=levels.conditions if levels is not None else (),
            missing=(*missing, _unmapped(key)) if gone else tuple(missing),
        )

    async def batch(self, key: ServiceKey, missing: list[str]) -> BatchView | None:
        """The batch of a key; None without an addition to `missing` for a service or a deleted batch."""
        if batch_named(key) is None:
            return None
        if self.batches is None:
            missing.append("failed Jobs are not watched")
            return None
        return await or_missing(self.batches.batch(key), "batch", missing)

    async def workload(
        self, key: ServiceKey, missing: list[str], *, tolerated: type[AgentError] = AgentError
    ) -> WorkloadView | None:
        """The workload now; None without an addition to `missing` means that no workload maps to it."""
        if key in TELEMETRY_SOURCES:
            missing.append("a source of telemetry runs as no workload")
            return None
        if batch_named(key) is not None:
            return None
        if self.reader is None:
            missing.append(NO_CLUSTER)
            return None
        before = len(missing)
        found = await or_missing(self.reader.workload(key), "workload", missing, tolerated)
        if self.annotated is not None and len(missing) == before:
            self.annotated.learn(key, () if found is None else found.slo_annotations)
        return found

    async def _with_application(self, workload: WorkloadView, missing: list[str]) -> WorkloadView:
        """The workload with the application that owns it, where a GitOps controller is connected."""
        if self.applications is None:
            return workload
        found = await or_missing(
            self.applications.owner_of(workload), "GitOps application", missing, PermanentError
        )
        if found is None:
            return workload
        return replace(workload, application=found, managed_by=workload.managed_by or found.owner)

    async def reported_conditions(self, key: ServiceKey) -> tuple[Condition, ...]:
        """The last report to intake about the service."""
        levels = await self.store.signals.levels(key)
        return levels.conditions if levels is not None else ()

    async def sli(self, key: ServiceKey, now: datetime, missing: list[str]) -> SliSample | None:
        """The newest service levels: measured ones, or posted ones if the source has none of the service.

        None, with an addition to `missing`, when the metric source gives no usable
        answer: posted samples do not replace a failed measurement.
        """
        if self.metrics is not None and _is_measured(key):
            sample = await or_missing(self.metrics.sli(key, now), "service levels", missing)
            if sample is None:
                return None
            if not sample.empty:
                return replace(sample, measured=True)
        levels = await self.store.signals.levels(key)
        return levels.last_sample if levels is not None else None

    async def telemetry(self, key: ServiceKey, now: datetime, missing: list[str]) -> TelemetryHealth | None:
        """Whether telemetry works at all, evaluated over every service known to the service's cluster."""
        if self.metrics is None or not _is_measured(key):
            return None
        known = {key}
        if self.reader is not None:
            services = await or_missing(self.reader.services(), "list of services", missing)
            # Services of the same cluster: the series of one cluster may end while the others continue.
            cluster = self.clusters.of(key.environment)
            known.update(one for one in services or () if self.clusters.of(one.environment) == cluster)
        faults: list[str] = []
        found = await or_missing(self.metrics.telemetry(sorted(known), now), "state of the telemetry", faults)
        if found is not None:
            return found
        missing.extend(faults)
        return TelemetryHealth(
            known_services=len(known), silent_services=0, source_reachable=False, fault="; ".join(faults)
        )

    async def _changes(
        self, key: ServiceKey, since: datetime, dependencies: tuple[ServiceKey, ...]
    ) -> tuple[Change, ...]:
        """Changes in the service's environment, each release once and at its first report.

        Changes of the service and its dependencies are never displaced by others.
        """
        known: set[Change] = set()
        for one in (key, *dependencies):
            known.update(await self.store.signals.changes(since - RELEASES_KNOWN, of=one))
        near = {key, *dependencies}
        others = [
            change
            for change in await self.store.signals.changes(since)
            if change.key.environment == key.environment and change.key not in near
        ]
        known.update(others)
        for one in sorted({change.key for change in others})[:_OTHERS_SHOWN]:
            known.update(await self.store.signals.changes(since - RELEASES_KNOWN, of=one))
        return once(known, since)

    async def _dependency_levels(
        self, key: ServiceKey, now: datetime, missing: list[str], calls: Calls
    ) -> tuple[DependencyLevels, ...]:
        """The service levels of the nearest dependencies that have samples, direct ones first."""
        found = []
        for one in nearest(calls, key, _DEPENDENCIES_MEASURED):
            unmeasured: list[str] = []
            sli = await self._sli_history(one, now, unmeasured)
            missing.extend(f"{one}: {reason}" for reason in unmeasured)
            if sli:
                found.append(DependencyLevels(key=one, sli=sli, calls=calls.get(one, ())))
        return tuple(found)

    async def _failing_beside(
        self, key: ServiceKey, now: datetime, calls: Calls
    ) -> tuple[FailingBeside, ...]:
        """Since when other services are outside their objectives; an escalated incident is not over."""
        recently = IncidentFilter(environment=key.environment, since=now - self.lookback)
        recent = await self.store.incidents.find(recently, limit=_BESIDE_LOOKED_AT, cursor=None)
        dependencies = calls.get(key, ())
        near = [*dependencies[:_DEPENDENCIES_MEASURED]]
        near += [record.incident.key for record in recent.items]
        found = []
        for one in dict.fromkeys(near):
            if one == key or one in TELEMETRY_SOURCES:
                continue
            levels = await self.store.signals.levels(one)
            since = None if levels is None else levels.breached_since
            if since is not None:
                apart = one not in dependencies and unrelated(self.calls, key, one)
                found.append(FailingBeside(key=one, since=since, unrelated=apart))
        return tuple(found)

    async def _sli_history(
        self, key: ServiceKey, now: datetime, unmeasured: list[str]
    ) -> tuple[SliSample, ...]:
        """Posted and measured samples, each marked: a rule reads one kind, never both as one history."""
        posted = await self.store.signals.samples(key, now - self.lookback)
        if self.metrics is None or not _is_measured(key):
            return posted
        found = await or_missing(
            self.metrics.sli_range(key, now - self.lookback, now, _SLI_STEP),
            "service level history",
            unmeasured,
        )
        measured = tuple(replace(sample, measured=True) for sample in found or ())
        if measured:
            # The series itself holds more than its bad samples that the poller reported.
            posted = tuple(sample for sample in posted if not sample.measured)
        return tuple(sorted((*posted, *measured), key=lambda sample: sample.at))


def _is_measured(key: ServiceKey) -> bool:
    """Whether series of a metric source may be about it: a batch serves no requests."""
    return key not in TELEMETRY_SOURCES and batch_named(key) is None


def _unmapped(key: ServiceKey) -> str:
    if batch_named(key) is not None:
        return f"{key.service} is not in the cluster"
    return f"no workload in the cluster maps to {key}"
