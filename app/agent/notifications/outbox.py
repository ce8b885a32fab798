"""The outbox: what people are to be told is put on record, and every channel delivers it in its own time.

The `Notifier` of the product. It waits for the store and for nothing else, so
that a chat that is down holds no incident up, and loses nothing (`docs/channels.md`).
"""

from __future__ import annotations

from dataclasses import dataclass

from app.agent.models import Incident
from app.agent.ports.store import PostingStore
from app.clock import Clock


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcements:
    """`Notifier` into the store; `app.workers.notifier` takes it from there."""

    store: PostingStore
    clock: Clock

    async def send(self, text: str, incident: Incident) -> None:
        """Durable when this returns."""
        await self.store.announce(incident.id, text, self.clock.now())
