"""The cluster watcher: conditions that appear on a workload become signals without an external sender.

Each event of the cluster watch leads to one look at the workload; what appeared or
cleared since the last look is reported to intake. Metrics are not part of it: a slow or
silent metric source delays no condition. A revision that stayed healthy long enough is
written to history by a separate task, because that needs metrics.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from app.agent.evidence.conditions import condition_words
from app.agent.ids import ServiceKey
from app.agent.intake import Intake
from app.agent.memory import Historian
from app.agent.models import (
    WATCHED,
    ClusterCondition,
    Condition,
    Signal,
)
from app.agent.observer import Observer, new_signal, workload_conditions
from app.agent.ports.cluster import ClusterWatch
from app.agent.workload import WorkloadView
from app.clock import Clock
from app.errors import AgentError
from app.workers.fanout import Fanout

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
    at_once: int = 8
    """Workloads that are read side by side."""
    _seen: dict[ServiceKey, frozenset[Condition]] = field(default_factory=dict)
    _looking: dict[ServiceKey, asyncio.Lock] = field(default_factory=dict)
    _looks: Fanout = field(init=False)

    def __post_init__(self) -> None:
        self._looks = Fanout(work=self._look_safely, at_once=self.at_once)

    async def run(self) -> None:
        """Follow the cluster until cancelled; an unreachable cluster is tried again."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._looks.run())
            group.create_task(self._follow())

    async def _follow(self) -> None:
        while True:
            try:
                async for event in self.watch.events():
                    self._looks.ask(event.key)
            except AgentError as error:
                log.warning("cluster watch failed: %s", error)
            await self.clock.sleep(_PAUSE_AFTER_ERROR_SECONDS)

    async def recheck(self, every: timedelta) -> None:
        """Observe every known service at intervals: a revision becomes healthy without an event."""
        noting = Fanout(work=self._note_safely, at_once=self.at_once)
        async with asyncio.TaskGroup() as group:
            group.create_task(noting.run())
            while True:
                await self.clock.sleep(every.total_seconds())
                for key in tuple(self._seen):
                    self._looks.ask(key)
                    noting.ask(key)

    async def look(self, key: ServiceKey) -> tuple[Signal, ...]:
        """One look at a service: its new signals accepted, its history written, before this returns."""
        signals = await self.look_at_workload(key)
        await self.note(key)
        return signals

    async def look_at_workload(self, key: ServiceKey) -> tuple[Signal, ...]:
        """The new signals of a service, accepted before this returns; asks no metric source."""
        async with self._looking.setdefault(key, asyncio.Lock()):
            missing: list[str] = []
            at = self.clock.now()
            workload = await self.observer.workload(key, missing)
            if workload is None:
                if not missing:
                    self._seen.pop(key, None)
                else:
                    log.warning("observing %s failed: %s", key, "; ".join(missing))
                return ()
            present = frozenset(workload_conditions(workload))
            before = self._seen.get(key)
            if before is None:
                before = frozenset(await self.observer.told_conditions(key)) - present
            signals = tuple(self._signals(key, at, workload, before, present))
            if signals:
                await self.intake.accept(signals)
            self._seen[key] = present
            return signals

    async def note(self, key: ServiceKey) -> None:
        """Write revisions that stayed healthy long enough to history."""
        if key in self._seen:
            await self.historian.note(key, await self.observer.look(key, self.clock.now()))

    async def _look_safely(self, key: ServiceKey) -> None:
        try:
            await self.look_at_workload(key)
        except AgentError as error:
            log.warning("observing %s failed: %s", key, error)

    async def _note_safely(self, key: ServiceKey) -> None:
        try:
            await self.note(key)
        except AgentError as error:
            log.warning("writing the history of %s failed: %s", key, error)

    def _signals(
        self,
        key: ServiceKey,
        at: datetime,
        workload: WorkloadView,
        before: frozenset[Condition],
        present: frozenset[Condition],
    ) -> Iterable[Signal]:
        changed = [(c, True) for c in sorted(present - before)]
        changed += [(c, False) for c in sorted(before - present)]
        for condition, is_present in changed:
            yield new_signal(
                key=key,
                source=WATCHED,
                observed_at=at,
                received_at=at,
                payload=ClusterCondition(
                    condition=condition,
                    present=is_present,
                    message=condition_words(workload, condition) if is_present else "cleared",
                    revision=workload.current_revision,
                ),
                stale_after=self.stale_after,
            )
