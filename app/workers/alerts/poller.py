"""Finds alerts whose delivery was missed: firing alerts without a recorded signal.

The reader of deliveries turns them into signals, so that a late delivery is recognised as the same signal.
For one interval polling leaves an alert to its delivery. An alert found by polling and not delivered since
is reported again while it is listed, so that its reason stays fresh; its end is also detected (`unlisted`).
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from app.agent.identity.people import Sender, SenderKind
from app.agent.intake import Intake
from app.agent.intake.signals import new_signal
from app.agent.models import ALERTS_SOURCE, Alert, DispositionKind, IncidentRecord, Signal
from app.agent.ports.cluster import PodOwners
from app.agent.ports.store.incidents import IncidentRepository
from app.agent.ports.store.signals import SignalRepository
from app.clock import Clock
from app.config import Settings
from app.connectors.alerts.delivery import AlertDelivery
from app.connectors.alerts.owners import owners_of
from app.connectors.kinds import AlertSource
from app.errors import AgentError
from app.measures.process import Measures
from app.workers.alerts.own_silences import AgentSilences
from app.workers.alerts.unlisted import UnlistedAlerts

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertPoller:
    """Polls one source of alerts for the life of the process; one process does it for all."""

    source: AlertSource
    settings: Settings
    signals: SignalRepository
    incidents: IncidentRepository
    silences: AgentSilences | None
    """None where the agent may not silence alerts: polling does not depend on its silences then."""
    intake: Intake
    owners: PodOwners | None
    clock: Clock
    measures: Measures
    _recorded: set[str] = field(default_factory=set)
    """Deduplication keys of firing alerts that are on record."""
    _unlisted: list[UnlistedAlerts] = field(default_factory=list)
    """The found alerts; empty until the record was read, once for each term of the process."""

    async def run(self) -> None:
        """Poll until cancelled; a source out of reach is tried again next time."""
        self._unlisted.clear()  # another process may have polled in between
        while True:
            try:
                await self.poll()
            except AgentError as error:
                log.warning("polling alerts failed: %s", error)
            await self.clock.sleep(self.source.every.total_seconds())

    async def poll(self) -> int:
        """One round; how many missed alerts were accepted."""
        unlisted = await self._memory()
        asked_at = self.clock.now()  # what is delivered while the answer is on its way is newer
        known: Mapping[str, IncidentRecord] = {}
        if self.silences is not None:
            known = await self.silences.held(asked_at)
            await self.silences.end_unneeded(known)
        await unlisted.silenced({record.incident.key for record in known.values()})
        delivery = await self.source.firing(frozenset(known))
        batch = delivery.batch(
            settings=self.settings,
            received_at=asked_at,
            owners=await owners_of(self.owners, delivery.pods_to_ask(self.settings)),
        )
        # The watchdog alert is not taken from here: it shows whether deliveries arrive.
        due = {one.dedup_key: _found(one, delivery) for one in batch.signals if self._due(one)}
        self._recorded.intersection_update(due)
        self._recorded.update(await self.signals.known([key for key in due if key not in self._recorded]))
        missed = [one for key, one in due.items() if key not in self._recorded]
        accepted = await self._take(missed, unlisted)
        await self._repeat({_identity(one): one for one in due.values()}, unlisted, asked_at)
        await self._end(delivery, unlisted)
        return accepted

    async def _memory(self) -> UnlistedAlerts:
        if not self._unlisted:
            memory = UnlistedAlerts(signals=self.signals, incidents=self.incidents)
            await memory.recall(self.clock.now())
            self._unlisted.append(memory)
        return self._unlisted[0]

    async def _take(self, signals: Collection[Signal], unlisted: UnlistedAlerts) -> int:
        """Accept alerts that no delivery reported; how many are new."""
        if not signals:
            return 0
        answers = await self.intake.accept([*signals])
        news = []
        for one, answer in zip(signals, answers, strict=True):
            self._recorded.add(one.dedup_key)
            if answer.disposition.kind is DispositionKind.DEDUPLICATED or not isinstance(one.payload, Alert):
                continue
            news.append(f"{one.payload.name} of {one.key}")
            unlisted.add(one.key, one.payload)
        if news:
            self.measures.missed_alerts.inc(len(news))
            log.warning("alerts without a delivery: %d (%s)", len(news), ", ".join(news)[:500])
        return len(news)

    async def _repeat(self, listed: Mapping[str, Signal], unlisted: UnlistedAlerts, now: datetime) -> None:
        """Report alerts that were found here once more: they fire again, or their reasons would age."""
        keys = {identity: one.key for identity, one in listed.items()}
        ended = await unlisted.listed_again(keys)
        await self._take([listed[one] for one in sorted(ended)], unlisted)
        longest = timedelta(seconds=self.settings.evidence_max_age_seconds) / 2
        old = await unlisted.to_refresh(keys, now - longest, now)
        if old:
            await self.intake.accept([listed[one] for one in sorted(old - ended)])

    async def _end(self, delivery: AlertDelivery, unlisted: UnlistedAlerts) -> None:
        """Report the ends of alerts that were found here and are no longer listed."""
        held = {one.fingerprint.lower() for one in delivery.entries}
        now = self.clock.now()
        for key, alert in await unlisted.over(self.source, held, self.source.every, now):
            identity = f"{delivery.source}:{alert.identity}"
            end = new_signal(
                key=key,
                source=delivery.source,
                observed_at=now,
                received_at=now,
                payload=replace(alert, firing=False),
                stale_after=timedelta.max,
                dedup_key=f"{identity}:unlisted:{now.isoformat()}",
            )
            await self.intake.accept([replace(end, sender=_sender(delivery))])
            unlisted.ended(key, alert, now)
            log.info("alert %s of %s is no longer listed: ended", alert.name, key)

    def _due(self, signal: Signal) -> bool:
        waited = signal.received_at - signal.observed_at
        return signal.key != ALERTS_SOURCE and waited >= self.source.every


def _found(signal: Signal, delivery: AlertDelivery) -> Signal:
    """The signal of an alert that was read, and not delivered."""
    payload = signal.payload
    assert isinstance(payload, Alert)  # noqa: S101 - a delivery of alerts holds nothing else
    return replace(signal, payload=replace(payload, polled=True), sender=_sender(delivery))


def _identity(signal: Signal) -> str:
    assert isinstance(signal.payload, Alert)  # noqa: S101 - a delivery of alerts holds nothing else
    return signal.payload.identity


def _sender(delivery: AlertDelivery) -> Sender:
    return Sender(kind=SenderKind.WEBHOOK, name=delivery.source)
