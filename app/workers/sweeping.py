"""The sweep: finds what a crash or a lost wake left lying, ends what nobody follows up (promise 9)."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import timedelta

from app.agent.ports import Runner, Store
from app.clock import Clock
from app.errors import AgentError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweeper:
    """Repairs at start and every so often."""

    store: Store
    runner: Runner
    clock: Clock
    every: timedelta
    pending_for: timedelta
    """A breach that was not sustained for this long after its arrival is over."""
    keep_for: timedelta
    """How long signals that led to no incident are kept."""

    async def run(self) -> None:
        """Sweep until cancelled; a store out of reach is tried again."""
        while True:
            try:
                await self.sweep()
            except AgentError as error:
                log.warning("the sweep could not be done: %s", error)
            await self.clock.sleep(self.every.total_seconds())

    async def sweep(self) -> None:
        """Wake every open incident, expire pending signals, forget old ones that led to nothing."""
        for incident in await self.store.open_incidents():
            await self.runner.wake(incident.id)
        await self.store.prune(self.clock.now() - self.keep_for)
        expired = await self.store.expire_pending(self.clock.now() - self.pending_for)
        if expired:
            log.info("%d pending signals expired", expired)
