"""Learn: what an incident taught, and which revisions and configurations served well.

The lesson is recorded when an incident ends. Between incidents the historian
marks what is running as having served well, which is what a rollback or a
reverted configuration may later go back to; what failed is marked too, and never
gone back to.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from app.agent.intents import done_intents, is_undone
from app.agent.models import (
    ActionName,
    Cause,
    ConfigRecord,
    IncidentRecord,
    IncidentState,
    Lesson,
    Observation,
    RevisionHealth,
    RevisionRecord,
    ServiceKey,
    WorkloadView,
)
from app.agent.observer import workload_conditions
from app.agent.ports import ClusterReader, HistoryStore
from app.agent.slo import SloThresholds


def lesson(record: IncidentRecord, end: IncidentState, at: datetime) -> Lesson:
    """What the incident taught, given how it ended."""
    incident = record.incident
    done = done_intents(record)
    stands = any(i.applied_token is not None and not is_undone(record, i) for i in done)
    recovered = end in (IncidentState.RECOVERED, IncidentState.RECOVERED_WITHOUT_ACTION)
    return Lesson(
        cause=incident.diagnosis.best.cause if incident.diagnosis is not None else Cause.UNKNOWN,
        runbook=incident.plan.runbook if incident.plan is not None else None,
        actions=tuple(i.action.name for i in done),
        worked=(end is IncidentState.RECOVERED and stands) if done else None,
        recovered_alone=end is IncidentState.RECOVERED_WITHOUT_ACTION,
        seconds_to_recover=(at - incident.opened_at).total_seconds() if recovered else None,
        at=at,
    )


def failed_revision(record: IncidentRecord, workload: WorkloadView, at: datetime) -> RevisionRecord | None:
    """The revision that a helpful rollback left behind: it is never rolled back to again."""
    rolled_back = any(
        i.action.name is ActionName.ROLLBACK
        and not is_undone(record, i)
        and i.applied_token == workload.target.token
        for i in record.intents
    )
    older = workload.revisions[1:]
    if not rolled_back or not older:
        return None
    left = max(older, key=lambda revision: revision.number)
    return RevisionRecord(
        key=record.incident.key,
        template_hash=left.template_hash,
        number=left.number,
        health=RevisionHealth.FAILED,
        seen_at=at,
        reason=f"incident {record.incident.id} recovered by leaving it",
    )


def serves_well(seen: Observation, slo: SloThresholds, for_at_least: timedelta) -> bool:
    """Whether what runs now has run whole, alone and within the SLO for long enough to be trusted."""
    workload = seen.workload
    if workload is None or not workload.pods or seen.told_conditions or seen.unmeasured is not None:
        return False
    if seen.telemetry is not None and seen.telemetry.outage:
        return False
    if not workload.rollout_complete or workload.available_replicas < workload.desired_replicas:
        return False
    if workload_conditions(workload) or (seen.sli is not None and slo.breaches(seen.sli)):
        return False
    moments = [pod.created_at for pod in workload.pods]
    moments.extend(c.changed_at for c in workload.config_maps if c.changed_at is not None)
    return seen.at - max(moments) >= for_at_least


@dataclass(frozen=True, slots=True, kw_only=True)
class Historian:
    """Keeps the history that rollbacks and reverts choose from."""

    store: HistoryStore
    reader: ClusterReader
    slo: SloThresholds
    trust_after: timedelta
    """How long a revision must serve within the SLO before it counts as one that served well."""

    async def note(self, key: ServiceKey, seen: Observation) -> bool:
        """Record what runs now as having served well, if it has; True when it was recorded."""
        if not serves_well(seen, self.slo, self.trust_after):
            return False
        workload = seen.workload
        if workload is None or not workload.revisions:
            return False
        current = workload.revisions[0]
        known = {r.template_hash: r.health for r in await self.store.revisions(key)}.get(
            current.template_hash
        )
        if known is not RevisionHealth.SERVED_WELL:
            await self.store.record_revision(
                RevisionRecord(
                    key=key,
                    template_hash=current.template_hash,
                    number=current.number,
                    health=RevisionHealth.SERVED_WELL,
                    seen_at=seen.at,
                    reason="complete and within the SLO",
                )
            )
        await self._note_configs(key, workload, seen.at)
        return True

    async def _note_configs(self, key: ServiceKey, workload: WorkloadView, at: datetime) -> None:
        trusted = {
            (c.name, c.content_hash)
            for c in await self.store.configs(key)
            if c.health is RevisionHealth.SERVED_WELL
        }
        started = min((pod.created_at for pod in workload.pods), default=at)
        in_force = {
            (c.name, c.content_hash)
            for c in workload.config_maps
            if not (c.read_at_start and c.changed_at is not None and c.changed_at > started)
        }
        if in_force <= trusted:
            return
        for config in await self.reader.config_contents(key):
            # A version that arrived between the two reads has not been judged.
            if (config.name, config.content_hash) in in_force - trusted:
                await self.store.record_config(_served_well(config, at))


def _served_well(config: ConfigRecord, at: datetime) -> ConfigRecord:
    return replace(config, health=RevisionHealth.SERVED_WELL, seen_at=at)
