"""The driver: takes incidents that are due and moves each one on by a pass of the loop.

The queue is the incidents' own rows (`due_at`) and their claims, so nothing has to be handed over when a
process dies: its incidents become free, and are due. A resting incident costs no memory and no CPU, even
for days. The driver knows only the clock, the store and the fleet, so that the same one runs in production,
in the demo and in the simulation of the machinery (promises 2 and 3).
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from app.agent.ids import IncidentId
from app.agent.loop import Loop
from app.agent.ports.store.claims import Claim, ClaimRepository
from app.agent.ports.workers import Fleet
from app.clock import Clock
from app.errors import AgentError
from app.measures.process import Measures
from app.vitals import Vitals

log = logging.getLogger(__name__)

PART = "driver"
"""Its name among the vitals."""

_SHORTEST_REST_SECONDS = 0.02
_PAUSE_AFTER_ERROR_SECONDS = 1.0


@dataclass(kw_only=True)
class Driver:
    """Moves due incidents on, several at a time; a `Runner`. One per process."""

    claims: ClaimRepository
    loop: Loop
    clock: Clock
    fleet: Fleet
    at_once: int = 16
    """Passes that run side by side; most of their time is spent waiting for others."""
    vitals: Vitals = field(default_factory=Vitals)
    measures: Measures = field(default_factory=Measures.of_process)
    """Called after each claim of due work and at the end of each pass."""
    poll: timedelta = timedelta(seconds=1)
    """Polling interval for due work without notifications."""
    _running: dict[IncidentId, asyncio.Task[None]] = field(default_factory=dict)
    _claims: dict[IncidentId, Claim] = field(default_factory=dict)
    """The start values of each running pass."""
    _again: set[IncidentId] = field(default_factory=set)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _stopping: bool = False
    _taking: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def wake(self, incident_id: IncidentId) -> None:  # noqa: ARG002 - all that is due is looked at
        """Look for due work now."""
        self._wake.set()

    async def run(self) -> None:
        """Drive until stopped; a store out of reach is tried again."""
        self.vitals.moved(PART)
        listener = asyncio.create_task(self._listen())
        try:
            while not self._stopping:
                await self._rest(await self._take())
        finally:
            listener.cancel()
            await asyncio.gather(listener, *self._running.values(), return_exceptions=True)

    def halt(self) -> None:
        """Claim nothing from now on; running passes continue."""
        self._stopping = True
        self._wake.set()

    async def stop(self, grace_seconds: float | None = None) -> None:
        """Claim nothing new, and let running passes finish.

        After `grace_seconds` passes that still wait for another process are interrupted and their claims
        released, so that a successor continues them at once. An interruption is harmless at every point: it
        looks like a crash (promise 2).
        """
        self.halt()
        try:
            async with asyncio.timeout(grace_seconds):
                async with self._taking:
                    pass  # also start the passes of incidents that are being claimed at this moment
                if self._running:
                    await asyncio.wait(self._running.values())
        except TimeoutError:
            await self._interrupt()

    async def _interrupt(self) -> None:
        left = tuple(self._claims.values())
        tasks = list(self._running.values())
        log.warning("%d incident passes exceeded their time and are interrupted", len(tasks))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for claim in left:
            try:
                await self.claims.release(claim)
            except AgentError as error:
                log.warning("claim on %s not released, it expires on its own: %s", claim.incident_id, error)

    async def _take(self) -> float:
        """Start a pass for each due incident there is room for; seconds until it makes sense to ask again."""
        async with self._taking:
            return 0.0 if self._stopping else await self._take_due()

    async def _take_due(self) -> float:
        room = self.at_once - len(self._running)
        if room < 1:
            return self.poll.total_seconds()
        now = self.clock.now()
        try:
            claims = await self.claims.take_due(self.loop.owner, self.loop.lease, now, room)
            self.vitals.moved(PART)
            for claim in claims:
                self._start(claim)
            if len(claims) == room:
                return self.poll.total_seconds()  # the end of a pass wakes the driver before
            return self._until(await self.claims.next_due(), now)
        except AgentError as error:
            log.warning("claiming due incidents failed: %s", error)
            return _PAUSE_AFTER_ERROR_SECONDS

    def _until(self, due: datetime | None, now: datetime) -> float:
        longest = self.poll.total_seconds()
        if due is None:
            return longest
        return min(longest, max(_SHORTEST_REST_SECONDS, (due - now).total_seconds()))

    def _start(self, claim: Claim) -> None:
        identifier = claim.incident_id
        if identifier in self._running:
            self._again.add(identifier)  # released a moment ago, by a pass that is about to end
        else:
            self._claims[identifier] = claim
            self._running[identifier] = asyncio.create_task(self._pass(identifier), name=f"pass {identifier}")

    async def _pass(self, identifier: IncidentId) -> None:
        try:
            self._again.add(identifier)
            while identifier in self._again:
                self._again.discard(identifier)
                await self._advance(identifier)
        finally:
            self.vitals.moved(PART)
            self._again.discard(identifier)
            del self._running[identifier], self._claims[identifier]
            self._wake.set()

    async def _advance(self, identifier: IncidentId) -> None:
        """One pass; after any failure the incident is due again, at the latest when its lease expires."""
        with self.measures.pass_seconds.time():
            result = await self._attempt(identifier)
        self.measures.passes.labels(result).inc()

    async def _attempt(self, identifier: IncidentId) -> str:
        """`done`, `retried` after an error that was foreseen, or `defect`."""
        try:
            await self.loop.advance(identifier)
        except AgentError as error:
            log.warning("processing incident %s failed: %s", identifier, error)
            return "retried"
        except Exception as error:
            # The worker boundary: an incident is never dropped for a defect.
            log.exception("processing incident %s failed; retrying", identifier)
            await self._report_defect(identifier, error)
            return "defect"
        return "done"

    async def _report_defect(self, identifier: IncidentId, defect: Exception) -> None:
        try:
            await self.loop.handle_defect(identifier, defect)
        except Exception:
            log.exception("recording the failure of incident %s failed", identifier)

    async def _rest(self, seconds: float) -> None:
        """Wait for a wake-up of the driver or the timeout."""
        waiting = {
            asyncio.create_task(self.clock.sleep(seconds)),
            asyncio.create_task(self._wake.wait()),
        }
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
        self._wake.clear()

    async def _listen(self) -> None:
        while True:
            await self.fleet.woken()
            self._wake.set()
