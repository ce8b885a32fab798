"""Operations of people on incidents, recorded in one transaction with their effect."""

from __future__ import annotations

from typing import Protocol

from app.agent.ids import IncidentId
from app.agent.models import Incident
from app.agent.responders.request import ResponderRequest


class ResponderRepository(Protocol):
    """Acts of people on incidents."""

    async def respond(self, incident_id: IncidentId, request: ResponderRequest) -> Incident:
        """Apply `app.agent.responders.effect.handled` under the incident's lock; the incident after it.

        Adds a timeline entry and one to the audit trail. A take-over and a resolution end the claim of the
        worker that holds the incident: the store refuses further writes of that worker. An incident that is
        taken over is never claimed. `NotFound` for an unknown id, `Conflict` when the incident does not
        permit the act.
        """
        ...
