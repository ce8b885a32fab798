"""The sweep: expires pending signals, prunes old ones, repairs discrepancies (promise 9), judges dry runs,
counts days that are over.

A discrepancy that needs manual repair is logged once when it is found, and shown by `heal audit signals`
for as long as it lasts.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from datetime import timedelta

from app.agent.audit.accounting import AuditQuestion, Discrepancy
from app.agent.ports.store import Store
from app.clock import Clock
from app.errors import AgentError

log = logging.getLogger(__name__)

_FORGET_EVERY = timedelta(hours=1)
_KEEP_CREDENTIALS = timedelta(days=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweeper:
    """Expires, deletes and repairs at regular intervals; one process does it for all."""

    store: Store
    clock: Clock
    every: timedelta
    pending_for: timedelta
    """A breach that was not sustained for this long after its arrival is over."""
    keep_for: timedelta
    """How long signals that led to no incident are kept."""
    _logged: set[Discrepancy] = field(default_factory=set)
    """Discrepancies of the last sweep, already logged."""

    async def run(self) -> None:
        """Sweep until cancelled; a store out of reach is tried again."""
        while True:
            try:
                await self.sweep()
            except AgentError as error:
                log.warning("sweep failed: %s", error)
            await self.clock.sleep(self.every.total_seconds())

    async def forget(self) -> None:
        """Until cancelled: remove credentials and nonces that became invalid long ago."""
        while True:
            try:
                await self.store.credentials.forget(self.clock.now() - _KEEP_CREDENTIALS)
            except AgentError as error:
                log.warning("removing expired credentials failed: %s", error)
            await self.clock.sleep(_FORGET_EVERY.total_seconds())

    async def sweep(self) -> None:
        """Expire pending signals, forget old ones, repair, judge dry runs, and count days that are over."""
        await self.store.signals.prune(self.clock.now() - self.keep_for)
        expired = await self.store.signals.expire_pending(self.clock.now() - self.pending_for)
        if expired:
            log.info("%d pending signals expired", expired)
        repairs = await self.store.accounting.repair(self.clock.now())
        if repairs.entered:
            log.info("%d signals accepted by an older version added to the ledger", repairs.entered)
        if repairs.woken:
            log.warning("incidents with a missed wake-up are due now: %s", ", ".join(repairs.woken))
        await self._log_discrepancies()
        now = self.clock.now()
        await self.store.statistics.judge(now, now - self.keep_for)
        await self.store.statistics.roll_up(now)

    async def _log_discrepancies(self) -> None:
        question = AuditQuestion(now=self.clock.now(), pending_for=self.pending_for + 2 * self.every)
        found = set((await self.store.accounting.discrepancies(question)).found)
        for discrepancy in sorted(found - self._logged, key=lambda one: (one.kind, one.id)):
            log.warning("discrepancy (%s): %s, %s", discrepancy.kind, discrepancy.id, discrepancy.detail)
        self._logged.clear()
        self._logged.update(found)
