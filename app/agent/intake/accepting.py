"""The function that every source of signals calls."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from app import spans
from app.agent.ids import ServiceKey
from app.agent.intake.rules import IntakeRules
from app.agent.models import DispositionKind, Signal
from app.agent.ports.store.signals import Accepted, Dequeued, SignalRepository
from app.agent.ports.workers import Runner

log = logging.getLogger("app.agent.intake")


@dataclass(frozen=True, slots=True, kw_only=True)
class Intake:
    """The function that every source of signals calls."""

    signals: SignalRepository
    rules: IntakeRules
    runner: Runner
    dry_run: bool

    async def accept(
        self,
        signals: Sequence[Signal],
        *,
        idempotency_key: str | None = None,
        request_hash: str | None = None,
    ) -> tuple[Accepted, ...]:
        """Make signals durable, decide each, and wake the incidents they concern.

        When this returns the caller may acknowledge. Waking comes after the
        commit and may be lost in a crash: the sweep finds open incidents again.
        """
        began = spans.begun()
        accepted = await self.signals.accept(
            signals,
            self.rules,
            again=self.rules.again,
            dry_run=self.dry_run,
            idempotency_key=idempotency_key,
            request_hash=request_hash,
        )
        spans.handled(one.disposition.kind for one in accepted)
        touched = {
            a.disposition.incident_id
            for a in accepted
            if a.disposition.kind in (DispositionKind.OPENED, DispositionKind.JOINED)
        }
        for signal, one in zip(signals, accepted, strict=False):
            if one.disposition.incident_id in touched and one.disposition.incident_id is not None:
                facts = {"service": signal.key.service, "environment": signal.key.environment}
                told = {"signal": signal.id, "source": signal.source, "disposition": one.disposition.kind}
                spans.past("intake", one.disposition.incident_id, began, **facts, **told)
            if one.disposition.kind is DispositionKind.OPENED:
                reason = one.disposition.reason.replace("_", " ")
                log.info("incident %s of %s opened: %s", one.disposition.incident_id, signal.key, reason)
        for incident_id in touched:
            if incident_id is not None:
                await self.runner.wake(incident_id)
        return accepted

    async def open_queued(self, limit: int) -> Dequeued:
        """Decide queued openings again, as far as their senders' limits allow."""
        return await self.signals.open_queued(
            replace(self.rules, queued=True), dry_run=self.dry_run, limit=limit
        )

    async def open_now(self, key: ServiceKey, at: datetime) -> None:
        """Open an incident from breaches on record, however short (run-once)."""
        levels = await self.signals.levels(key)
        triggers = self.rules.breaching(levels) if levels is not None else ()
        if triggers:
            await self.signals.open_from_pending(key, triggers, dry_run=self.dry_run, at=at)
