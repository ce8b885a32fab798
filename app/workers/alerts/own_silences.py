"""The agent's own silences at a poll: which alerts they mute, and which of them are no longer needed.

A closing incident ends its silences itself (`app.agent.closing`). A poll ends the others: those of an
incident that a person resolved or took over or that awaits an approval, those that could not be ended with
their incident, and those of a write that arrived later.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from app.agent.freshness.own_silences import incident_of
from app.agent.models import IncidentRecord, IncidentState
from app.agent.ports.silences import SilenceEnding
from app.agent.ports.store.incidents import IncidentRepository
from app.connectors.kinds import AlertSource
from app.errors import AgentError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSilences:
    """Finds the active silences that the agent created according to its record."""

    source: AlertSource
    incidents: IncidentRepository
    ending: SilenceEnding | None
    """None in a dry run."""

    async def held(self, at: datetime) -> Mapping[str, IncidentRecord]:
        """The incident of each own silence, by the id of the silence; raises like source and store."""
        found = {}
        for one in await self.source.own_silences(at):
            record = await incident_of(one, self.incidents)
            if record is not None:
                found[one.id] = record
        return found

    async def end_unneeded(self, held: Mapping[str, IncidentRecord]) -> None:
        """End the silences of incidents on which the agent does not work; the next poll retries a failure."""
        if self.ending is None:
            return
        unneeded = {
            record.incident.id: record
            for record in held.values()
            if record.incident.state.closed
            or record.incident.state is IncidentState.AWAITING_APPROVAL
            or record.incident.taken_over is not None
        }
        for record in unneeded.values():
            incident = record.incident
            try:
                ended = await self.ending.end(incident.key, record.intents)
            except AgentError as error:
                log.warning("silences of incident %s were not ended: %s", incident.id, error)
            else:
                log.info("silences of incident %s ended: %d", incident.id, ended)
