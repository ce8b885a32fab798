"""The outbox: notifications are stored, and delivered to every channel asynchronously.

The `Notifier` of the product. It waits only for the store, so that a chat that is down
neither blocks an incident nor loses a notification (`docs/channels.md`).
"""

from __future__ import annotations

from dataclasses import dataclass

from app.agent.models import Incident
from app.agent.ports.store.notifications import NotificationRepository
from app.clock import Clock


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcements:
    """`Notifier` that writes to the store; `app.workers.notifier` delivers."""

    notifications: NotificationRepository
    clock: Clock

    async def send(self, text: str, incident: Incident) -> None:
        """Durable when this returns."""
        await self.notifications.announce(incident.id, text, self.clock.now())
