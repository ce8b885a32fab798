"""Watches escalated incidents: an incident whose service stays healthy for a whole soak ends as recovered.

The agent only observes. A round checks a bounded number of incidents: those whose soak has begun, the
newest, and some of the others in turn. The progress of a soak is kept in memory; a restarted process begins
it again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime

from app.agent.evidence.format import in_words
from app.agent.gitops.steps import policy_left_off
from app.agent.ids import IncidentId
from app.agent.models import (
    Incident,
    IncidentRecord,
    IncidentState,
    Note,
    Stage,
    Verification,
)
from app.agent.notes import still_in_place
from app.agent.ports.store import Store
from app.agent.ports.store.incidents import IncidentFilter
from app.agent.responders.effect import awaits_recovery
from app.agent.verification.assessment import Assessment, Health
from app.agent.verification.rules import VerifyRules
from app.agent.verification.verdict import advance
from app.agent.verifier import Verifier
from app.clock import Clock
from app.durations import span
from app.errors import AgentError

log = logging.getLogger(__name__)

HEALTHY_AT_ONCE, NEWEST_AT_ONCE, REST_AT_ONCE = 20, 10, 10
"""The most incidents of each kind that one round looks at."""

_ESCALATED = IncidentFilter(states=(IncidentState.ESCALATED,))


def recovered(
    record: IncidentRecord, seen: Verification, health: Assessment, at: datetime, rules: VerifyRules
) -> tuple[Incident, Note] | None:
    """The incident after its recovery, with its note; None while the soak is not over.

    None as well where automated sync was left off: that waits for a person.
    """
    incident, since = record.incident, seen.healthy_since
    if since is None or health.health is not Health.HEALTHY or at - since < rules.soak:
        return None
    if incident.closed_at is None or policy_left_off(record):
        return None
    later = f", {span(since - incident.closed_at)} after the escalation" if since > incident.closed_at else ""
    why = (
        f"Recovered at {since:%Y-%m-%d %H:%M:%S} UTC{later}: {'; '.join(health.reasons)}. "
        f"The agent did nothing after the handover.{still_in_place(record)}"
    )
    after = replace(incident, state=IncidentState.RECOVERED, recovered_at=since, summary=why)
    note = Note(
        at=at,
        stage=Stage.LEARN,
        message=f"Closed: {in_words(after.state)}. {why}",
        data={"state": after.state, "recovered_at": since.isoformat()},
    )
    return after, note


@dataclass(kw_only=True)
class RecoveryWatch:
    """Looks at escalated incidents at regular intervals; one elected process does it for all."""

    store: Store
    verifier: Verifier
    clock: Clock
    _healthy: dict[IncidentId, Verification] = field(default_factory=dict)
    """The incidents that were healthy at the last check."""
    _cursor: str | None = None
    """Where the round through the rest continues; None: after the newest."""

    async def run(self) -> None:
        """Watch until cancelled; a store out of reach is tried again."""
        while True:
            try:
                await self.round()
            except AgentError as error:
                log.warning("watching escalated incidents failed: %s", error)
            await self.clock.sleep(self.verifier.rules.interval.total_seconds())

    async def round(self) -> None:
        """One look at each incident whose turn it is."""
        for one in list(self._healthy):
            record = await self.store.incidents.get(one)
            if record is None or not awaits_recovery(record.incident):
                del self._healthy[one]
            else:
                await self._look(record.incident)
        for incident in await self._others():
            await self._look(incident)

    async def _others(self) -> tuple[Incident, ...]:
        """The newest, and the next part of the rest."""
        newest = await self.store.incidents.find(_ESCALATED, limit=NEWEST_AT_ONCE, cursor=None)
        start = self._cursor or newest.next_cursor
        found = newest.items
        self._cursor = None
        if start is not None:
            rest = await self.store.incidents.find(_ESCALATED, limit=REST_AT_ONCE, cursor=start)
            self._cursor = rest.next_cursor
            found = (*found, *rest.items)
        return tuple(self._new(record.incident for record in found))

    def _new(self, found: Iterable[Incident]) -> list[Incident]:
        each = {one.id: one for one in found if one.id not in self._healthy and awaits_recovery(one)}
        return list(each.values())

    async def _look(self, incident: Incident) -> None:
        """Observe the service of the incident; a failed observation does not stop the round."""
        now = self.clock.now()
        before = self._healthy.pop(incident.id, None) or Verification(intent_id=None, started_at=now)
        try:
            _, health = await self.verifier.look(replace(incident, verification=before), now)
        except AgentError as error:
            log.debug("escalated incident %s could not be observed: %s", incident.id, error)
            return
        if health.health is not Health.HEALTHY:
            return
        seen = advance(before, health, now, self.verifier.rules)
        if seen.healthy_since is not None and now - seen.healthy_since >= self.verifier.rules.soak:
            await self._end(incident.id, seen, health, now)
        elif len(self._healthy) < HEALTHY_AT_ONCE:
            self._healthy[incident.id] = seen

    async def _end(
        self, identifier: IncidentId, seen: Verification, health: Assessment, now: datetime
    ) -> None:
        record = await self.store.incidents.get(identifier)
        if record is None or not awaits_recovery(record.incident):
            return
        ended = recovered(record, seen, health, now, self.verifier.rules)
        if ended is not None and await self.store.incidents.recover(*ended):
            log.info("incident %s of %s recovered after its escalation", identifier, ended[0].key)
