"""The sweep: ends signals that nobody follows up, and forgets old ones that led to nothing (promise 9)."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import timedelta

from app.agent.ports import SignalStore
from app.clock import Clock
from app.errors import AgentError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweeper:
    """Ends and forgets, every so often; one process does it for all."""

    store: SignalStore
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
        """Expire pending signals, forget old ones that led to nothing."""
        await self.store.prune(self.clock.now() - self.keep_for)
        expired = await self.store.expire_pending(self.clock.now() - self.pending_for)
        if expired:
            log.info("%d pending signals expired", expired)
