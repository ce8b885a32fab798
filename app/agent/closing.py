"""Closes incidents: with a lesson, and with a notification on escalation.

Called by the loop and by the soak. An action that was begun but not finished is
recorded with an unknown outcome.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

from app import spans
from app.agent.execution.undo import since_then, together
from app.agent.gitops.steps import policy_left_off
from app.agent.guardrails.question import TargetLook
from app.agent.intents import Since, credited, handled_since, has_silenced, in_place, not_undone
from app.agent.memory import lesson
from app.agent.models import (
    Incident,
    IncidentRecord,
    IncidentState,
    Intent,
    IntentState,
    Note,
    Outcome,
    OutcomeKind,
    Stage,
)
from app.agent.notes import (
    ending_note,
    silence_ended_note,
    silence_left_note,
    still_in_place,
    unknown_effects,
    why_recovered,
)
from app.agent.ports.cluster import ClusterReader
from app.agent.ports.people import Notifier
from app.agent.ports.silences import SilenceEnding
from app.agent.ports.store import Store
from app.agent.ports.store.claims import Claim
from app.agent.responders.undo_request import withdrawn
from app.agent.workload import ObjectRef
from app.clock import Clock
from app.errors import AgentError, NotFound

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Closer:
    """Closes incidents."""

    store: Store
    notifier: Notifier | None
    clock: Clock
    reader: ClusterReader | None = None
    """None: no cluster is connected."""
    silences: SilenceEnding | None = None
    """Ends the agent's own silences; None in a dry run, and without a monitoring."""

    async def stop_at(self, record: IncidentRecord, claim: Claim, stage: str, error: AgentError) -> None:
        """A stage failed permanently: finish open intents with their true outcome and escalate.

        `record` may be from before the stage: data stored by the stage is read again.
        """
        now = self.clock.now()
        record = await self.store.incidents.get(record.incident.id) or record
        for intent in record.intents:
            if intent.state is IntentState.FINISHED:
                continue
            began = intent.state is IntentState.EXECUTING
            kind = OutcomeKind.UNKNOWN if began else OutcomeKind.REFUSED
            await self.store.intents.finish(
                claim, intent.id, Outcome(kind=kind, message=str(error), at=now), None, []
            )
        fresh = await self.store.incidents.get(record.incident.id)
        said = str(error).removesuffix(".")
        why = f"Stage {stage} failed permanently: {said}.{unknown_effects(record)}"
        await self.close(fresh or record, claim, IncidentState.ESCALATED, why)

    async def close(self, record: IncidentRecord, claim: Claim, end: IncidentState, why: str) -> None:
        await self.close_with(record, record.incident, claim, end, [], why)

    async def close_with(
        self,
        record: IncidentRecord,
        incident: Incident,
        claim: Claim,
        end: IncidentState,
        notes: Sequence[Note],
        why: str,
    ) -> None:
        """End as `end`; as escalated if a change did not help and was not undone (promise 10).

        The summary of a recovery after an action begins with what helped; `why` follows it.
        """
        incident = withdrawn(incident, why, self.clock.now())
        known = replace(record, incident=incident)
        since = await self._since(known)
        notes = [*notes, *await self._end_silences(record)]
        if end is IncidentState.RECOVERED:
            why = f"{why_recovered(known, since)} {why}".rstrip()
        if not_undone(known):
            end, why = IncidentState.ESCALATED, f"{why.removesuffix('.')}.{still_in_place(known, since)}"
        off = policy_left_off(known)
        if off:
            end, why = IncidentState.ESCALATED, f"{why.removesuffix('.')}.{off}"
        if end is IncidentState.ESCALATED:
            notes = [*notes, *await self._notify_people(incident, why)]
        now = self.clock.now()
        learnt = lesson(known, now, since)
        ended = replace(incident, state=end, closed_at=now, lesson=learnt, summary=why)
        await self.store.incidents.save(claim, ended, [*notes, ending_note(end, why, learnt, now)])
        log.info("incident %s of %s ended: %s", incident.id, incident.key, end.replace("_", " "))
        trace_end(ended)

    async def _end_silences(self, record: IncidentRecord) -> list[Note]:
        """End the silences of the incident before its end is stored; after a crash the attempt is repeated.

        A silence that cannot be ended ends by itself; the incident does not wait for it.
        """
        if not has_silenced(record):
            return []
        incident, failed = record.incident, "alerts are not silenced by this process (DRY_RUN)"
        if self.silences is not None:
            try:
                ended = await self.silences.end(incident.key, record.intents)
            except AgentError as error:
                failed = str(error)
            else:
                return [silence_ended_note(incident.key, ended, self.clock.now())]
        return [silence_left_note(incident.key, failed, self.clock.now())]

    async def _since(self, record: IncidentRecord) -> Since:
        """The present state of the agent's changes, for the summary."""
        found = await self.since(record, [*in_place(record), *credited(record)])
        handled: dict[str, str] = {
            i.id: by for i in credited(record) if (by := handled_since(record, i)) is not None
        }
        return together([found, Since(handled_by=handled)])

    async def since(self, record: IncidentRecord, intents: Sequence[Intent]) -> Since:
        """What became of some of the agent's changes, read from the cluster; each target is read once."""
        looks: dict[ObjectRef | None, TargetLook] = {}
        found = []
        for intent in intents:
            if intent.applied_token is None or self.reader is None:
                continue
            target = intent.action.target
            if target not in looks:
                looks[target] = await self._look(intent)
            found.append(since_then(record, intent, looks[target]))
        return together(found)

    async def _look(self, intent: Intent) -> TargetLook:
        assert self.reader is not None  # noqa: S101 - the caller has checked
        try:
            return TargetLook(target=await self.reader.target(intent.action))
        except NotFound:
            return TargetLook(gone=True)
        except AgentError as error:
            return TargetLook(problem=str(error))

    async def _notify_people(self, incident: Incident, why: str) -> list[Note]:
        """Queue the notification before the end is stored, so that a crash cannot lose it."""
        notifier = self.notifier
        if notifier is None:
            return []
        try:
            await notifier.send(why, incident)
        except AgentError as error:
            text = f"Notification failed: {error}."
        else:
            text = "Notification queued."
        return [Note(at=self.clock.now(), stage=Stage.EXECUTE, message=text)]


def trace_end(incident: Incident) -> None:
    """The span of a whole incident that has just ended."""
    if incident.closed_at is not None:
        spans.ended(
            incident.id,
            incident.opened_at,
            incident.closed_at,
            state=incident.state,
            verdict=incident.verdict.kind if incident.verdict is not None else "",
            service=incident.key.service,
            environment=incident.key.environment,
        )
