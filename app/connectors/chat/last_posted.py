"""The last message posted by a channel that cannot edit messages: its `reference`. Pure.

Used by channels that cannot edit a message. Such a channel posts a new message when the
incident's state or its pending approval changes, and for nothing else.
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
    """An incident as last posted, and the number of posts."""

    incident_id: str
    service: str
    environment: str
    opened_at: str
    closed_at: str | None
    state: str
    approval: str | None
    """What waited for an answer."""
    writes: int = 1

    @staticmethod
    def first(bulletin: Bulletin) -> PostedIncident:
        """The content of the first message."""
        incident, asked = bulletin.record.incident, bulletin.asked
        return PostedIncident(
            incident_id=incident.id,
            service=incident.key.service,
            environment=incident.key.environment,
            opened_at=incident.opened_at.isoformat(),
            closed_at=incident.over_at.isoformat() if incident.over_at else None,
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
        """The next message; None while nothing changed."""
        now = PostedIncident.first(bulletin)
        if (now.state, now.approval) == (self.state, self.approval):
            return None
        return PostedIncident(**{**asdict(now), "writes": self.writes + 1})

    @property
    def key(self) -> str:
        """The same for the same change, another for another: none is taken for a repeat of the other."""
        parts = [self.incident_id, str(self.writes), self.state, *([self.approval] if self.approval else [])]
        return "-".join(parts)

    @property
    def id(self) -> IncidentId:
        return IncidentId(self.incident_id)

    @property
    def title(self) -> str:
        return shorten(str(ServiceKey(environment=self.environment, service=self.service)), 200)
