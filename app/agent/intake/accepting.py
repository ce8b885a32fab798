"""The function that every source of signals calls."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from app import spans
from app.agent.ids import ServiceKey
from app.agent.intake.posted import HTTP
from app.agent.intake.rules import IntakeRules
from app.agent.models import DispositionKind, PostedSamples, Signal
from app.agent.ports.store.signals import (
    Accepted,
    Dequeued,
    HealthySamples,
    SamplesAnswer,
    SignalRepository,
)
from app.agent.ports.workers import Runner

log = logging.getLogger("app.agent.intake")

_following: set[asyncio.Task[None]] = set()
"""What posted samples opened or joined, being reported; the event loop keeps no tasks itself."""


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
        await self._follow_up([(signal.key, signal.source) for signal in signals], accepted, began)
        return accepted

    async def accept_samples(self, posted: PostedSamples) -> SamplesAnswer:
        """The same for samples that were posted over HTTP, without an idempotency key."""
        began = spans.begun()
        answer = await self.signals.accept_samples(posted, self.rules, dry_run=self.dry_run)
        if isinstance(answer, HealthySamples):
            spans.handled([answer.disposition.kind] * len(answer.signal_ids))
        else:
            await self._follow_up([(sample.key, HTTP) for sample in posted.samples], answer, began)
        return answer

    def post_samples(self, posted: PostedSamples, done: Callable[[SamplesAnswer | Exception], None]) -> None:
        """The same for up to a hundred samples, without a task; `done` is called once, on the event loop."""
        began = spans.begun()

        def recorded(answer: SamplesAnswer | Exception) -> None:
            if isinstance(answer, HealthySamples):
                spans.handled([answer.disposition.kind] * len(answer.signal_ids))
                done(answer)
            elif isinstance(answer, Exception):
                done(answer)
            else:
                task = asyncio.get_running_loop().create_task(follow_up(answer))
                _following.add(task)
                task.add_done_callback(_following.discard)

        async def follow_up(answer: tuple[Accepted, ...]) -> None:
            try:
                await self._follow_up([(sample.key, HTTP) for sample in posted.samples], answer, began)
            except Exception as error:  # noqa: BLE001 - boundary: the sender gets the error
                done(error)
            else:
                done(answer)

        self.signals.post_samples(posted, self.rules, dry_run=self.dry_run, done=recorded)

    async def _follow_up(
        self, about: Sequence[tuple[ServiceKey, str]], accepted: Sequence[Accepted], began: int
    ) -> None:
        """Count and report the accepted signals, by service and source, and wake incidents."""
        spans.handled(one.disposition.kind for one in accepted)
        touched = {
            a.disposition.incident_id
            for a in accepted
            if a.disposition.kind in (DispositionKind.OPENED, DispositionKind.JOINED)
        }
        for (key, source), one in zip(about, accepted, strict=False):
            if one.disposition.incident_id in touched and one.disposition.incident_id is not None:
                facts = {"service": key.service, "environment": key.environment}
                attributes = {"signal": one.signal_id, "source": source, "disposition": one.disposition.kind}
                spans.past("intake", one.disposition.incident_id, began, **facts, **attributes)
            if one.disposition.kind is DispositionKind.OPENED:
                reason = one.disposition.reason.replace("_", " ")
                log.info("incident %s of %s opened: %s", one.disposition.incident_id, key, reason)
        for incident_id in touched:
            if incident_id is not None:
                await self.runner.wake(incident_id)

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
