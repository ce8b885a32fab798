"""Learn: the lesson of an incident, and the revisions and configurations that served well.

The lesson is recorded when an incident ends. Between incidents the historian records
the running version as having served well, which makes it a target of a rollback or a
configuration revert; a failed version is recorded too and never used as a target.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from app.agent.actions.target_parts import as_left
from app.agent.evidence.conditions import workload_conditions
from app.agent.evidence.trust import (
    TrustRules,
    objection,
    period_of,
    traffic_in,
)
from app.agent.guardrails.workload_kinds import mutes
from app.agent.ids import ServiceKey
from app.agent.intents import (
    NOT_READ,
    Since,
    credited,
    done_intents,
    handled_since,
    is_undone,
    judged_with,
)
from app.agent.models import (
    ActionName,
    Cause,
    IncidentRecord,
    Intent,
    Lesson,
    Observation,
    VerdictKind,
)
from app.agent.ports.cluster import ClusterReader
from app.agent.ports.metrics import MetricSource
from app.agent.ports.store import Store
from app.agent.ports.store.incidents import IncidentFilter
from app.agent.slo import SloThresholds
from app.agent.workload import (
    ConfigRecord,
    RevisionHealth,
    RevisionRecord,
    WorkloadView,
)
from app.errors import AgentError

_STEP, _SAMPLES = timedelta(seconds=1), 120
"""The period is sampled so finely, and at most so often."""


def lesson(record: IncidentRecord, at: datetime, since: Since = NOT_READ) -> Lesson:
    """The lesson of the incident, given its verdict: how it ended says who has to look at it.

    An action worked if the service recovered after it and, as `since` says, with it.
    """
    incident, verdict = record.incident, record.incident.verdict
    done = [one for one in done_intents(record) if not mutes(one.action)]
    recovered = verdict is not None and verdict.kind is VerdictKind.RECOVERED
    helped = credited(record)
    stands = any(i.applied_token is not None and not is_undone(record, i) for i in helped)
    doubtful = any(since.doubts(i) for i in helped)
    return Lesson(
        cause=incident.diagnosis.best.cause if incident.diagnosis is not None else Cause.UNKNOWN,
        runbook=incident.plan.runbook if incident.plan is not None else None,
        actions=tuple(i.action.name for i in done),
        worked=(stands and not doubtful) if done else None,
        recovered_alone=recovered and verdict is not None and verdict.intent_id is None,
        seconds_to_recover=(at - incident.opened_at).total_seconds() if recovered else None,
        at=at,
    )


def failed_revision(
    record: IncidentRecord, helped: Intent, workload: WorkloadView, at: datetime
) -> RevisionRecord | None:
    """The revision that a successful rollback replaced: it is never a rollback target again.

    `helped` is the action after which the service recovered; an earlier rollback did not help.
    If a person handled the incident in between, it is unknown what helped.
    """
    rolled_back = any(
        i.action.name is ActionName.ROLLBACK
        and not is_undone(record, i)
        and as_left(i.action, i.applied_token, workload.target.token)
        for i in judged_with(record, helped)
    )
    older = workload.revisions[1:]
    if not rolled_back or not older or handled_since(record, helped) is not None:
        return None
    left = max(older, key=lambda revision: revision.number)
    return RevisionRecord(
        key=record.incident.key,
        template_hash=left.template_hash,
        number=left.number,
        health=RevisionHealth.FAILED,
        seen_at=at,
        reason=f"incident {record.incident.id} recovered after this revision was replaced",
    )


def serves_well_since(seen: Observation, slo: SloThresholds) -> datetime | None:
    """Since when only the current version serves, fully rolled out; None if it has a fault now.

    A pod serves from the time it became ready: its behaviour before that shows nothing.
    """
    workload = seen.workload
    if workload is None or not workload.pods or seen.reported_conditions or seen.unmeasured is not None:
        return None
    if seen.telemetry is not None and seen.telemetry.outage:
        return None
    if not workload.rollout_complete or workload.available_replicas < workload.desired_replicas:
        return None
    if workload_conditions(workload) or (seen.sli is not None and slo.breaches(seen.sli)):
        return None
    moments = [pod.created_at for pod in workload.pods]
    moments.extend(p.ready_changed_at for p in workload.pods if p.ready and p.ready_changed_at is not None)
    moments.extend(c.changed_at for c in workload.config_maps if c.changed_at is not None)
    return max(moments)


def running_version(workload: WorkloadView) -> str:
    """What runs and would be recorded: the revision, its configuration, and the pods that read it."""
    revision = workload.revisions[0].template_hash if workload.revisions else ""
    configs = [f"{config.name}={config.content_hash}" for config in workload.config_maps]
    pods = [pod.created_at.isoformat() for pod in workload.pods]
    return " ".join([revision, *sorted(configs), min(pods, default=""), max(pods, default="")])


@dataclass(frozen=True, slots=True, kw_only=True)
class Historian:
    """Records the history from which rollbacks and reverts choose."""

    store: Store
    reader: ClusterReader
    metrics: MetricSource | None
    slo: SloThresholds
    rules: TrustRules

    def due(self, workload: WorkloadView) -> datetime | None:
        """When the running version may be trusted at the earliest; None while its workload has a fault."""
        seen = Observation(
            at=workload.observed_at, sli=None, workload=workload, gone=False, telemetry=None, missing=()
        )
        since = serves_well_since(seen, self.slo)
        return None if since is None else since + self._least

    async def knows(self, key: ServiceKey, workload: WorkloadView, at: datetime) -> bool:
        """Whether everything that runs is recorded as serving well; reads only the store."""
        if not workload.revisions:
            return False
        known = {r.template_hash: r.health for r in await self.store.history.revisions(key)}
        if known.get(workload.revisions[0].template_hash) is not RevisionHealth.SERVED_WELL:
            return False
        return not await self._unproved_configs(key, workload, at)

    async def note(self, key: ServiceKey, seen: Observation) -> bool:
        """Record the running version as having served well, if it has; True if that is stored."""
        since, workload = serves_well_since(seen, self.slo.of(key)), seen.workload
        if since is None or workload is None or not workload.revisions:
            return False
        if seen.at - since < self._least:
            return False
        current = workload.revisions[0]
        known = {r.template_hash: r.health for r in await self.store.history.revisions(key)}
        proved = known.get(current.template_hash) is RevisionHealth.SERVED_WELL
        configs = await self._unproved_configs(key, workload, seen.at)
        if proved and not configs:
            return True
        if await self._objection(key, workload, since, seen.at) is not None:
            return False
        # The configuration first: a revision becomes trusted only after its configuration is stored.
        if configs:
            await self._note_configs(key, configs, seen.at)
        if not proved:
            await self.store.history.record_revision(
                RevisionRecord(
                    key=key,
                    template_hash=current.template_hash,
                    number=current.number,
                    health=RevisionHealth.SERVED_WELL,
                    seen_at=seen.at,
                    reason="complete and within the SLO",
                )
            )
        return True

    @property
    def _least(self) -> timedelta:
        """How long a version must have served: a shorter time than a measurement covers shows nothing."""
        if self.metrics is None:
            return self.rules.after
        return max(self.rules.after, self.rules.window)

    async def _objection(
        self, key: ServiceKey, workload: WorkloadView, since: datetime, now: datetime
    ) -> str | None:
        """Why the period since then is not sufficient to trust the version."""
        start, end = period_of(self.rules, since, now)
        where = IncidentFilter(service=key.service, environment=key.environment)
        for record in (await self.store.incidents.find(where, limit=1, cursor=None)).items:
            closed = record.incident.closed_at
            if closed is None or closed > max(since, now - self.rules.after):
                return f"incident {record.incident.id} was open in that time"
        if self.rules.min_requests == 0 or workload.trusted_without_traffic:
            return None
        if self.metrics is None:
            return "no metric source counts its requests"
        if end <= start:
            return "it has not run for as long as a measurement looks back"
        step = max(_STEP, (end - start) / _SAMPLES)
        try:
            samples = await self.metrics.sli_range(key, start, end, step)
        except AgentError as error:
            return f"its requests could not be counted: {error}"
        slo = self.slo.of(key)
        return objection(traffic_in(samples, slo, step), self.rules, slo)

    async def _unproved_configs(
        self, key: ServiceKey, workload: WorkloadView, at: datetime
    ) -> set[tuple[str, str]]:
        """Name and hash of each ConfigMap's content that is in force and not known to serve well."""
        trusted = {
            (c.name, c.content_hash)
            for c in await self.store.history.configs(key)
            if c.health is RevisionHealth.SERVED_WELL
        }
        started = min((pod.created_at for pod in workload.pods), default=at)
        in_force = {
            (c.name, c.content_hash)
            for c in workload.config_maps
            if not (c.read_at_start and c.changed_at is not None and c.changed_at > started)
        }
        return in_force - trusted

    async def _note_configs(self, key: ServiceKey, proved: set[tuple[str, str]], at: datetime) -> None:
        for config in await self.reader.config_contents(key):
            # A version that arrived between the two reads has not been judged.
            if (config.name, config.content_hash) in proved:
                await self.store.history.record_config(_served_well(config, at))


def _served_well(config: ConfigRecord, at: datetime) -> ConfigRecord:
    return replace(config, health=RevisionHealth.SERVED_WELL, seen_at=at)
