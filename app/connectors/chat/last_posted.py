"""What a channel that cannot edit its messages has told last about an incident: its `reference`. Pure.

Used by the webhook and by Teams. Such a channel posts anew when the incident's
state, or what waits for an answer, is another than was told, and stays silent
about everything else.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from app.agent.ids import IncidentId, ServiceKey
from app.agent.notifications.channel import Bulletin
from app.connectors.text import shorten
from app.errors import Invalid


@dataclass(frozen=True, slots=True, kw_only=True)
class PostedIncident:
    """An incident as it was told, and the how manieth time that was."""

    incident_id: str
    service: str
    environment: str
    opened_at: str
    closed_at: str | None
    state: str
    approval: str | None
    """What waited for an answer."""
    told: int = 1

    @staticmethod
    def first(bulletin: Bulletin) -> PostedIncident:
        """What a first message tells."""
        incident, asked = bulletin.record.incident, bulletin.asked
        return PostedIncident(
            incident_id=incident.id,
            service=incident.key.service,
            environment=incident.key.environment,
            opened_at=incident.opened_at.isoformat(),
            closed_at=incident.closed_at.isoformat() if incident.closed_at else None,
            state=incident.state.value,
            approval=asked.id if asked is not None else None,
        )

    @staticmethod
    def read(reference: str) -> PostedIncident:
        """Raises `Invalid` for a reference that `written` did not make."""
        try:
            return PostedIncident(**json.loads(reference))
        except (TypeError, ValueError):
            raise Invalid("the record of the last posted message cannot be parsed") from None

    def written(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":"))

    def followed_by(self, bulletin: Bulletin) -> PostedIncident | None:
        """What is to be told next; None while it is what was told."""
        now = PostedIncident.first(bulletin)
        if (now.state, now.approval) == (self.state, self.approval):
            return None
        return PostedIncident(**{**asdict(now), "told": self.told + 1})

    @property
    def key(self) -> str:
        """The same for the same change, another for another: none is taken for a repeat of the other."""
        parts = [self.incident_id, str(self.told), self.state, *([self.approval] if self.approval else [])]
        return "-".join(parts)

    @property
    def id(self) -> IncidentId:
        return IncidentId(self.incident_id)

    @property
    def title(self) -> str:
        return shorten(str(ServiceKey(environment=self.environment, service=self.service)), 200)
