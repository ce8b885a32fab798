"""The batch watcher: a failed Job, or a completed run, becomes a signal about its batch.

Jobs are listed at intervals; even for a cluster with thousands of Jobs only the last list, and intake's
record of each batch, are kept.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from datetime import timedelta

from app.agent.batch.runs import BatchView
from app.agent.batch.signals import condition_of_batch
from app.agent.ids import ServiceKey
from app.agent.intake import Intake
from app.agent.intake.signals import new_signal
from app.agent.models import WATCHED, ClusterCondition, Condition, Signal
from app.agent.ports.cluster import BatchReader
from app.agent.ports.store.signals import SignalRepository
from app.clock import Clock
from app.errors import AgentError

log = logging.getLogger(__name__)

LOOK_EVERY = timedelta(seconds=30)


@dataclass(kw_only=True)
class BatchWatcher:
    """Looks at the batches of the connected clusters for the life of the process."""

    reader: BatchReader
    signals: SignalRepository
    intake: Intake
    clock: Clock
    stale_after: timedelta
    _failed: dict[ServiceKey, bool] = field(default_factory=dict)
    """Whether the failure of a batch was reported and its end was not."""

    async def run(self) -> None:
        """Look until cancelled; an unreachable cluster is tried again."""
        self._failed.clear()  # another process may have checked in between
        while True:
            try:
                await self.look()
            except AgentError as error:
                log.warning("looking for failed Jobs failed: %s", error)
            await self.clock.sleep(LOOK_EVERY.total_seconds())

    async def look(self) -> tuple[Signal, ...]:
        """One look at every batch; what changed is accepted before this returns."""
        found = {batch.key: batch for batch in await self.reader.batches()}
        signals = []
        for key, batch in found.items():
            condition = condition_of_batch(batch, known=await self._known(key, batch))
            if condition is not None:
                signals.append(self._signal(key, condition))
        gone = [key for key, failed in self._failed.items() if failed and key not in found]
        over = ClusterCondition(condition=Condition.JOB_FAILED, present=False, message="no run is kept")
        signals += [self._signal(key, over) for key in gone]
        if signals:
            await self.intake.accept(signals)
        for one in signals:
            if isinstance(one.payload, ClusterCondition):
                self._failed[one.key] = one.payload.present
        self._failed = {key: failed for key, failed in self._failed.items() if key in found}
        return tuple(signals)

    async def _known(self, key: ServiceKey, batch: BatchView) -> bool:
        """Whether its failure was reported; a process that has just started asks intake."""
        if key not in self._failed:
            levels = await self.signals.levels(key)
            self._failed[key] = levels is not None and Condition.JOB_FAILED in levels.conditions
        return self._failed[batch.key]

    def _signal(self, key: ServiceKey, payload: ClusterCondition) -> Signal:
        now = self.clock.now()
        return new_signal(
            key=key,
            source=WATCHED,
            observed_at=now,
            received_at=now,
            payload=payload,
            stale_after=self.stale_after,
        )
