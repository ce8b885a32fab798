"""The agent's own silences at a poll: whose alerts they hold back, and which incidents are over.

A closing incident ends its silences itself (`app.agent.closing`). What is left is ended here:
of an incident that a person resolved or took over, of one whose source did not answer at its end,
and of a write that arrived after it.
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
    """Reads which silences in force are the agent's own, as the record has them."""

    source: AlertSource
    incidents: IncidentRepository
    ending: SilenceEnding | None
    """None in a dry run."""

    async def held(self, at: datetime) -> Mapping[str, IncidentRecord]:
        """The incident of each of them, by the id of the silence; raises like source and store."""
        found = {}
        for one in await self.source.own_silences(at):
            record = await incident_of(one, self.incidents)
            if record is not None:
                found[one.id] = record
        return found

    async def end_of_closed(self, held: Mapping[str, IncidentRecord]) -> None:
        """End those of incidents that are over, that a person handles or that await an approval.

        What cannot be ended is tried again at the next poll.
        """
        over = {
            record.incident.id: record
            for record in held.values()
            if record.incident.state.closed
            or record.incident.state is IncidentState.AWAITING_APPROVAL
            or record.incident.taken_over is not None
        }
        if self.ending is None:
            return
        for record in over.values():
            incident = record.incident
            try:
                ended = await self.ending.end(incident.key, record.intents)
            except AgentError as error:
                log.warning("silences of incident %s were not ended: %s", incident.id, error)
            else:
                log.info("silences of incident %s ended: %d", incident.id, ended)
