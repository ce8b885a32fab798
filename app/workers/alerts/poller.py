"""Finds alerts whose delivery was missed: those that fire and that no signal is on record of.

They become signals by the reader of deliveries, so that a delivery that comes after all
is recognised as the same signal. An alert is left to its delivery for one interval.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace

from app.agent.identity.people import Sender, SenderKind
from app.agent.intake import Intake
from app.agent.models import ALERTS_SOURCE, Alert, Signal
from app.agent.ports.cluster import PodOwners
from app.agent.ports.store.signals import SignalRepository
from app.clock import Clock
from app.config import Settings
from app.connectors.alerts.owners import owners_of
from app.connectors.kinds import AlertSource
from app.errors import AgentError
from app.measures.process import Measures

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertPoller:
    """Polls one source of alerts for the life of the process; one process does it for all."""

    source: AlertSource
    settings: Settings
    signals: SignalRepository
    intake: Intake
    owners: PodOwners | None
    clock: Clock
    measures: Measures
    _recorded: set[str] = field(default_factory=set)
    """Deduplication keys of firing alerts that are on record."""

    async def run(self) -> None:
        """Poll until cancelled; a source out of reach is tried again next time."""
        while True:
            try:
                await self.poll()
            except AgentError as error:
                log.warning("polling alerts failed: %s", error)
            await self.clock.sleep(self.source.every.total_seconds())

    async def poll(self) -> int:
        """One round; how many missed alerts were accepted."""
        delivery = await self.source.firing()
        batch = delivery.batch(
            settings=self.settings,
            received_at=self.clock.now(),
            owners=await owners_of(self.owners, delivery.pods_to_ask(self.settings)),
        )
        # The watchdog alert is not taken from here: it shows whether deliveries arrive.
        due = {one.dedup_key: one for one in batch.signals if self._due(one)}
        self._recorded.intersection_update(due)
        self._recorded.update(await self.signals.known([key for key in due if key not in self._recorded]))
        missed = [one for key, one in due.items() if key not in self._recorded]
        if not missed:
            return 0
        sender = Sender(kind=SenderKind.WEBHOOK, name=delivery.source)
        await self.intake.accept([replace(one, sender=sender) for one in missed])
        self._recorded.update(one.dedup_key for one in missed)
        self.measures.missed_alerts.inc(len(missed))
        named = ", ".join(
            f"{one.payload.name} of {one.key}" for one in missed if isinstance(one.payload, Alert)
        )
        log.warning("alerts without a delivery: %d (%s)", len(missed), named[:500])
        return len(missed)

    def _due(self, signal: Signal) -> bool:
        waited = signal.received_at - signal.observed_at
        return signal.key != ALERTS_SOURCE and waited >= self.source.every
