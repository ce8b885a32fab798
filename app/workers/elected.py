"""Duties: work that one process does for all, such as watching the cluster, under a lease.

The holder of the lease works; the others request it again and again. A holder that
cannot renew it stops before it runs out. Two that overlap for a moment do no harm:
intake recognises duplicates (promise 9).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from app.agent.ports.workers import Fleet
from app.clock import Clock
from app.errors import AgentError

log = logging.getLogger(__name__)

_RESTART_AFTER_SECONDS = 5.0

Work = tuple[str, Callable[[], Awaitable[None]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ElectedTask:
    """Work that only the elected process does."""

    name: str
    work: Sequence[Work]
    fleet: Fleet
    owner: str
    clock: Clock
    lease: timedelta

    async def run(self) -> None:
        """Request the lease until cancelled; work while holding it."""
        tasks: list[asyncio.Task[None]] = []
        try:
            while True:
                elected = await self._elected()
                if elected and not tasks:
                    log.info("elected: this process runs the task %s", self.name)
                    tasks = [asyncio.create_task(kept_running(*one), name=one[0]) for one in self.work]
                elif not elected and tasks:
                    log.info("another process runs %s", self.name)
                    await _stop(tasks)
                await self.clock.sleep(self._third_of_lease)
        finally:
            await _stop(tasks)

    @property
    def _third_of_lease(self) -> float:
        return self.lease.total_seconds() / 3

    async def _elected(self) -> bool:
        """No answer means no lease: renewal starts after a third of it, so a third is left to stop in."""
        asking = asyncio.ensure_future(self.fleet.elect(self.name, self.owner, self.lease, self.clock.now()))
        too_late = asyncio.ensure_future(self.clock.sleep(self._third_of_lease))
        try:
            await asyncio.wait({asking, too_late}, return_when=asyncio.FIRST_COMPLETED)
            if asking.done():
                return asking.result()
            log.warning("lease of %s not renewed: no answer", self.name)
        except AgentError as error:
            log.warning("lease of %s not renewed: %s", self.name, error)
        finally:
            asking.cancel()
            too_late.cancel()
            await asyncio.gather(asking, too_late, return_exceptions=True)
        return False


async def kept_running(name: str, work: Callable[[], Awaitable[None]]) -> None:
    """Run work permanently: restart it after an unexpected failure."""
    while True:
        try:
            await work()
        except Exception:
            log.exception("%s failed; restarting in %.0f s", name, _RESTART_AFTER_SECONDS)
        await asyncio.sleep(_RESTART_AFTER_SECONDS)


async def _stop(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    tasks.clear()
