"""Observe: collect the evidence of an incident.

The observer is the only stage that reads external systems for diagnosis; rules receive
an `Evidence` and do no I/O. Data that cannot be read stays missing and is reported as
missing (promise 8).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TypeVar

from app.agent.batch.runs import BatchView, EndedContainer, batch_named
from app.agent.evidence.baselines.learned import Baselines
from app.agent.evidence.cluster.flags import flags_of
from app.agent.evidence.cluster.log_patterns import LogSource, log_sources, log_sources_of_run, patterns_of
from app.agent.evidence.cluster.node_neighbours import neighbours_on, only_node
from app.agent.evidence.cluster.release_records import with_releases
from app.agent.evidence.conditions import conditions_of
from app.agent.evidence.facts import config_map_changes
from app.agent.evidence.releases import once
from app.agent.evidence.syncs import with_syncs
from app.agent.guardrails.limits.clusters import Clusters
from app.agent.ids import ServiceKey
from app.agent.intents import tried
from app.agent.models import (
    TELEMETRY_SOURCES,
    Change,
    Condition,
    DependencyLevels,
    Evidence,
    FailingBeside,
    IncidentRecord,
    NodeNeighbours,
    Objectives,
    Observation,
    SliSample,
    TelemetryHealth,
)
from app.agent.ports.cluster import BatchReader, ClusterReader, ContainerLogs
from app.agent.ports.gitops import ApplicationReader
from app.agent.ports.metrics import MetricSource
from app.agent.ports.store import Store
from app.agent.ports.store.incidents import IncidentFilter
from app.agent.services.annotated import AnnotatedServices
from app.agent.services.calls import Calls, nearest, unrelated
from app.agent.services.terms import NO_SERVICES, ServiceCatalogue, objectives_of, with_dependencies
from app.agent.workload import ConfigRecord, LogPattern, LogTail, WorkloadView
from app.bounds.deadline import deadline
from app.errors import AgentError, PermanentError, TransientError

_SLI_STEP = timedelta(seconds=15)
_MAX_SIGNALS = 200
_OTHERS_SHOWN = 50
"""The maximum number of other services with an open incident that are read."""

_DEPENDENCIES_MEASURED = 8
"""The maximum number of dependencies whose service levels are read for a diagnosis."""

_BESIDE_LOOKED_AT = 16
"""The maximum number of recent incidents of other services whose breaches are read."""

_NEIGHBOURS_READ = 200
"""The maximum number of services whose pods are compared on a node."""

_NEIGHBOURS_SECONDS = 10.0
"""How long the comparison may read; without a current view each read is a request."""

RELEASES_KNOWN = timedelta(days=7)
"""How far back reports of a release are looked for that is reported again now."""

NO_CLUSTER = "no cluster connected"

T = TypeVar("T")


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
    """Services with objectives or dependencies of their own."""
    baselines: Baselines = field(default_factory=Baselines)
    """What is usual for the services, where this process measures them."""
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
        calls = await self._calls(key, workload, missing)
        dependencies = calls.get(key, ())
        beside = await self.store.incidents.open_beside(key, dependencies, _OTHERS_SHOWN)
        sli = await self._sli_history(key, now, unmeasured)
        telemetry = await self.telemetry(key, now, missing)
        missing.extend(unmeasured)
        levels = () if unmeasured else await self._dependency_levels(key, now, missing, calls)
        since = min(earliest, incident.opened_at) - self.lookback
        evidence = Evidence(
            key=key,
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
            failing_beside=await self._failing_beside(key, now, dependencies),
            callers=tuple(sorted(one for one, callees in self.calls.items() if key in callees)),
        )
        evidence = replace(
            evidence,
            log_patterns=await self._log_patterns(evidence, missing),
            flag_contents=await self._flag_contents(evidence, missing),
            neighbours=await self.neighbours(evidence),
        )
        return Gathered(evidence=evidence, missing=tuple(missing))

    async def _log_patterns(self, evidence: Evidence, missing: list[str]) -> tuple[LogPattern, ...]:
        """The patterns of the failing containers' last lines; the lines end here."""
        if self.logs is None:
            return ()
        if evidence.workload is not None:
            sources = log_sources(evidence.workload, evidence)
        else:
            sources = log_sources_of_run(await self._failures(evidence.batch, missing))
        found = await asyncio.gather(*(self._tail(self.logs, one, missing) for one in sources))
        # Beside the loop, which goes on between the steps of the reduction.
        return await asyncio.to_thread(
            lambda: tuple(
                each
                for one, tail in zip(sources, found, strict=True)
                if tail is not None
                for each in patterns_of(one, tail)
            )
        )

    async def neighbours(self, evidence: Evidence) -> NodeNeighbours | None:
        """How other services of the cluster fare on the node that holds all failing pods of this one.

        None where the pods show no such node, or the services cannot all be read in time.
        """
        workload, reader = evidence.workload, self.view or self.reader
        node = None if workload is None else only_node(workload.pods, evidence.at)
        if node is None or reader is None:
            return None
        try:
            async with deadline(
                _NEIGHBOURS_SECONDS, lambda: TransientError("reading the services took too long")
            ):
                return await self._compared(reader, node, evidence)
        except TransientError:
            return None

    async def _compared(self, reader: ClusterReader, node: str, evidence: Evidence) -> NodeNeighbours | None:
        """The services of the cluster on `node`; None where one of them cannot be read."""
        cluster, unread = self.clusters.of(evidence.key.environment), list[str]()
        others: list[tuple[ServiceKey, WorkloadView]] = []
        for key in sorted(await _or_missing(reader.services(), "list of services", unread) or ()):
            if key == evidence.key or self.clusters.of(key.environment) != cluster:
                continue
            found = await _or_missing(reader.workload(key), str(key), unread)
            if unread or len(others) == _NEIGHBOURS_READ:
                break
            if found is not None:
                others.append((key, found))
        return None if unread else neighbours_on(node, others, evidence.at)

    async def _failures(self, batch: BatchView | None, missing: list[str]) -> tuple[EndedContainer, ...]:
        """The containers that ended with an error in the run that failed last."""
        if batch is None or batch.failed is None or self.batches is None:
            return ()
        reading = self.batches.failures(batch, batch.failed)
        return await _or_missing(reading, f"pods of run {batch.failed.name}", missing) or ()

    async def _flag_contents(self, evidence: Evidence, missing: list[str]) -> tuple[ConfigRecord, ...]:
        """What is in force of each ConfigMap that changed and held feature flags when it served well."""
        changed = config_map_changes(evidence)
        names = {c.view.name for c in changed if c.last_good is not None and flags_of(c.last_good.data)}
        if not names or self.reader is None:
            return ()
        found = await _or_missing(self.reader.config_contents(evidence.key), "feature flags", missing)
        return tuple(one for one in found or () if one.name in names)

    async def _tail(self, logs: ContainerLogs, source: LogSource, missing: list[str]) -> LogTail | None:
        reading = logs.tail(source.pod, source.container, previous=source.previous)
        return await _or_missing(reading, f"logs of pod {source.pod.name}", missing)

    async def _with_recorded(
        self,
        key: ServiceKey,
        workload: WorkloadView | None,
        since: datetime,
        dependencies: tuple[ServiceKey, ...],
    ) -> tuple[Change, ...]:
        """The reported changes, with those that the owner or the release tool of the workload recorded."""
        reported = await self._changes(key, since, dependencies)
        application = workload.application if workload is not None else None
        return with_releases(with_syncs(reported, key, application, since), key, workload, since)

    @property
    def calls(self) -> Mapping[ServiceKey, tuple[ServiceKey, ...]]:
        """The calls between services as they are known now."""
        return with_dependencies(self.dependencies, self.services)

    async def _calls(self, key: ServiceKey, workload: WorkloadView | None, missing: list[str]) -> Calls:
        """The same; of a service without declared calls, those to services that its environment names."""
        known, reader = self.calls, self.view or self.reader
        if key in known or workload is None or not workload.calls or reader is None:
            return known
        services = await _or_missing(reader.services(), "list of services", missing) or ()
        called = tuple(one for one in workload.calls if one in services and one != key)
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
        """The batch that a key is about; None without an addition to `missing`: a service, or it is gone."""
        if batch_named(key) is None:
            return None
        if self.batches is None:
            missing.append("failed Jobs are not watched")
            return None
        return await _or_missing(self.batches.batch(key), "batch", missing)

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
        found = await _or_missing(self.reader.workload(key), "workload", missing, tolerated)
        if self.annotated is not None and len(missing) == before:
            self.annotated.learn(key, () if found is None else found.slo_annotations)
        return found

    async def _with_application(self, workload: WorkloadView, missing: list[str]) -> WorkloadView:
        """The workload with the application that owns it, where a GitOps controller is connected."""
        if self.applications is None:
            return workload
        found = await _or_missing(
            self.applications.owner_of(workload), "GitOps application", missing, PermanentError
        )
        if found is None:
            return workload
        return replace(workload, application=found, managed_by=workload.managed_by or found.owner)

    async def reported_conditions(self, key: ServiceKey) -> tuple[Condition, ...]:
        """What was last reported to intake about the service."""
        levels = await self.store.signals.levels(key)
        return levels.conditions if levels is not None else ()

    async def sli(self, key: ServiceKey, now: datetime, missing: list[str]) -> SliSample | None:
        """The newest service levels: measured ones, or posted ones where the source has none of the service.

        None, with an addition to `missing`, when the metric source gives no usable
        answer: what was posted does not stand in for a measurement that failed.
        """
        if self.metrics is not None and _is_measured(key):
            sample = await _or_missing(self.metrics.sli(key, now), "service levels", missing)
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
            services = await _or_missing(self.reader.services(), "list of services", missing)
            # Those of the same cluster: the series of one may end while the others have theirs.
            cluster = self.clusters.of(key.environment)
            known.update(one for one in services or () if self.clusters.of(one.environment) == cluster)
        faults: list[str] = []
        found = await _or_missing(
            self.metrics.telemetry(sorted(known), now), "state of the telemetry", faults
        )
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
        self, key: ServiceKey, now: datetime, dependencies: tuple[ServiceKey, ...]
    ) -> tuple[FailingBeside, ...]:
        """Since when other services are outside their objectives; an escalated incident is not over."""
        lately = IncidentFilter(environment=key.environment, since=now - self.lookback)
        recent = await self.store.incidents.find(lately, limit=_BESIDE_LOOKED_AT, cursor=None)
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
        found = await _or_missing(
            self.metrics.sli_range(key, now - self.lookback, now, _SLI_STEP),
            "service level history",
            unmeasured,
        )
        measured = tuple(replace(sample, measured=True) for sample in found or ())
        if measured:
            # The series itself says more than the samples of it that the poller reported for being bad.
            posted = tuple(sample for sample in posted if not sample.measured)
        return tuple(sorted((*posted, *measured), key=lambda sample: sample.at))


def _is_measured(key: ServiceKey) -> bool:
    """Whether series of a metric source may be about it: a batch serves no requests."""
    return key not in TELEMETRY_SOURCES and batch_named(key) is None


def _unmapped(key: ServiceKey) -> str:
    if batch_named(key) is not None:
        return f"{key.service} is not in the cluster"
    return f"no workload in the cluster maps to {key}"


async def _or_missing(
    answer: Awaitable[T], what: str, missing: list[str], tolerated: type[AgentError] = AgentError
) -> T | None:
    try:
        return await answer
    except tolerated as error:
        missing.append(f"{what}: {error}")
        return None
