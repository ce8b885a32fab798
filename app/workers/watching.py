"""The cluster watcher: conditions that appear on a workload become signals with nobody posting anything.

Each event of the cluster watch leads to one look at the service; what appeared or
cleared since the last look is told to intake, and what has served well long
enough is written to history.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta

from app.agent.intake import Intake
from app.agent.memory import Historian
from app.agent.models import ClusterCondition, Condition, Observation, ServiceKey, Signal, WorkloadView
from app.agent.observer import Observer, new_signal, workload_conditions
from app.agent.ports import ClusterWatch
from app.clock import Clock
from app.errors import AgentError

log = logging.getLogger(__name__)

_PAUSE_AFTER_ERROR_SECONDS = 5.0


@dataclass(kw_only=True)
class Watcher:
    """Watches one cluster for the life of the process."""

    watch: ClusterWatch
    observer: Observer
    historian: Historian
    intake: Intake
    clock: Clock
    stale_after: timedelta
    _seen: dict[ServiceKey, frozenset[Condition]] = field(default_factory=dict)
    _looking: dict[ServiceKey, asyncio.Lock] = field(default_factory=dict)

    async def run(self) -> None:
        """Follow the cluster until cancelled; an unreachable cluster is tried again."""
        while True:
            try:
                async for event in self.watch.events():
                    await self._look_safely(event.key)
            except AgentError as error:
                log.warning("the cluster cannot be watched: %s", error)
            await self.clock.sleep(_PAUSE_AFTER_ERROR_SECONDS)

    async def recheck(self, every: timedelta) -> None:
        """Look again at every known service now and then: health matures without an event."""
        while True:
            await self.clock.sleep(every.total_seconds())
            for key in tuple(self._seen):
                await self._look_safely(key)

    async def look(self, key: ServiceKey) -> tuple[Signal, ...]:
        """One look at a service: its new signals, accepted before this returns."""
        async with self._looking.setdefault(key, asyncio.Lock()):
            seen = await self.observer.look(key, self.clock.now())
            if seen.workload is None:
                if seen.gone:
                    self._seen.pop(key, None)
                return ()
            present = frozenset(workload_conditions(seen.workload))
            before = self._seen.get(key)
            if before is None:
                before = frozenset(seen.told_conditions) - present
            signals = tuple(self._signals(key, seen, seen.workload, before, present))
            if signals:
                await self.intake.accept(signals)
            self._seen[key] = present
            await self.historian.note(key, seen)
            return signals

    async def _look_safely(self, key: ServiceKey) -> None:
        try:
            await self.look(key)
        except AgentError as error:
            log.warning("%s could not be looked at: %s", key, error)

    def _signals(
        self,
        key: ServiceKey,
        seen: Observation,
        workload: WorkloadView,
        before: frozenset[Condition],
        present: frozenset[Condition],
    ) -> Iterable[Signal]:
        changed = [(c, True) for c in sorted(present - before)]
        changed += [(c, False) for c in sorted(before - present)]
        for condition, is_present in changed:
            yield new_signal(
                key=key,
                source="kubernetes",
                observed_at=seen.at,
                received_at=seen.at,
                payload=ClusterCondition(
                    condition=condition,
                    present=is_present,
                    message=_message(workload, condition) if is_present else "cleared",
                    revision=workload.current_revision,
                ),
                stale_after=self.stale_after,
            )


def _message(workload: WorkloadView, condition: Condition) -> str:
    if condition is Condition.PROGRESS_DEADLINE_EXCEEDED:
        return f"the rollout of revision {workload.current_revision} made no progress"
    reasons = {
        Condition.CRASH_LOOP_BACK_OFF: ("CrashLoopBackOff",),
        Condition.OOM_KILLED: ("CrashLoopBackOff",),
        Condition.IMAGE_PULL_BACK_OFF: ("ImagePullBackOff", "ErrImagePull", "InvalidImageName"),
    }[condition]
    sick = [p for p in workload.pods if p.waiting_reason in reasons]
    restarts = max((p.restarts for p in sick), default=0)
    return f"{len(sick)} of {len(workload.pods)} pods, up to {restarts} restarts"
