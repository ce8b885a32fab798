"""The backlog: incidents above a sender's limit are opened when others of its incidents end.

None is dropped, and the channels are notified once per backlog of a sender. One elected process does it for
all.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from datetime import timedelta

from app.agent.intake import Intake
from app.agent.ports.people import Notifier
from app.agent.ports.store.incidents import IncidentRepository
from app.agent.ports.store.signals import Queued
from app.clock import Clock
from app.errors import AgentError

log = logging.getLogger(__name__)

_AT_ONCE = 20
"""Openings in one transaction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """Opens queued incidents at regular intervals."""

    intake: Intake
    incidents: IncidentRepository
    notifier: Notifier | None
    clock: Clock
    every: timedelta = timedelta(seconds=5)
    _notified: set[str] = field(default_factory=set)
    """Senders whose backlog was reported."""

    async def run(self) -> None:
        """Work until cancelled; a store out of reach is tried again."""
        while True:
            try:
                await self.round()
            except AgentError as error:
                log.warning("opening queued incidents failed: %s", error)
            await self.clock.sleep(self.every.total_seconds())

    async def round(self) -> None:
        """Open queued incidents up to the limit, and notify people of a new backlog."""
        while True:
            found = await self.intake.open_queued(_AT_ONCE)
            if found.ended == 0:
                break
        self._notified.intersection_update(each.sender for each in found.queued)
        for each in found.queued:
            if each.sender not in self._notified:
                self._notified.add(each.sender)
                await self._notify(each)

    async def _notify(self, queued: Queued) -> None:
        text = (
            f"Sender {queued.sender} has reached its limit of open incidents: {queued.waiting} more are "
            "queued and opened as others end (MAX_OPEN_INCIDENTS_PER_SENDER). None is dropped."
        )
        log.warning("%s", text)
        record = await self.incidents.get(queued.newest) if queued.newest is not None else None
        if self.notifier is None or record is None:
            return
        try:
            await self.notifier.send(text, record.incident)
        except AgentError as error:
            self._notified.discard(queued.sender)
            log.warning("notifying the channels of the backlog failed: %s", error)
