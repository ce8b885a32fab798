"""How far each channel is up to date, and the pending announcements."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from app.agent.ids import IncidentId
from app.agent.notifications.channel import Announcement, Posting


class NotificationRepository(Protocol):
    """How far each channel is up to date, and the pending announcements."""

    async def announce(self, incident_id: IncidentId, text: str, at: datetime) -> None:
        """Put an announcement on record, durably; every channel gets it in its turn.

        `NotFound` for an incident that is not on record.
        """
        ...

    async def due(self, channel: str, at: datetime, limit: int) -> tuple[IncidentId, ...]:
        """Incidents with notifications pending for the channel, and that may be tried at `at`.

        Open ones first, each kind oldest first. Incidents that ended before the first call for the channel,
        and dry runs, are left out.
        """
        ...

    async def get(self, channel: str, incident_id: IncidentId) -> Posting | None: ...

    async def save(self, posting: Posting) -> Posting:
        """Store the next version; `Conflict` when another announcer was faster."""
        ...

    async def announcements(self, incident_id: IncidentId, after: int) -> tuple[Announcement, ...]:
        """An incident's announcements with a number above that, oldest first."""
        ...
