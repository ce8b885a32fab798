"""The cluster watcher: conditions that appear on a workload become signals without an external sender.

Each event of the cluster watch leads to one check of the workload; conditions that appeared or cleared
since the last check are reported to intake. The check reads no metrics: a slow or silent metric source
delays no condition. A service without an event is checked only if the passage of time can give it a
condition, and at long intervals. A revision that stayed healthy long enough is written to history by a
separate task, because that needs metrics.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from app.agent.evidence.cluster.scaling import scale_change
from app.agent.evidence.conditions import condition_words, lasting_conditions, settled, workload_conditions
from app.agent.guardrails.document import AGENT_NAME
from app.agent.ids import ServiceKey
from app.agent.intake import Intake
from app.agent.intake.signals import new_signal
from app.agent.memory import Historian, running_version
from app.agent.models import (
    WATCHED,
    ClusterCondition,
    Condition,
    Payload,
    Signal,
)
from app.agent.observer import Observer
from app.agent.ports.cluster import ClusterWatch
from app.agent.workload import WorkloadView
from app.clock import Clock
from app.errors import AgentError
from app.workers.fanout import Fanout
from app.workers.history_schedule import HistorySchedule

log = logging.getLogger(__name__)

_PAUSE_AFTER_ERROR_SECONDS = 5.0
_RELOOK_AFTER = timedelta(minutes=10)
"""Every service is looked at once in this time, whether or not it changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _LastLook:
    """The state of a service at the last check."""

    at: datetime
    conditions: frozenset[Condition]
    settled: bool
    """The passage of time gives it no condition."""
    replicas: int
    """The replicas that it asked for."""


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
    _seen: dict[ServiceKey, _LastLook] = field(default_factory=dict)
    _history: HistorySchedule = field(default_factory=HistorySchedule)
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
                    self._looks.ask(event.key, urgent=event.urgent)
            except AgentError as error:
                log.warning("cluster watch failed: %s", error)
            await self.clock.sleep(_PAUSE_AFTER_ERROR_SECONDS)

    async def recheck(self, every: timedelta) -> None:
        """At intervals, check services that the passage of time may change, and write due history."""
        noting = Fanout(work=lambda key: self._note_safely(key, every), at_once=self.at_once)
        async with asyncio.TaskGroup() as group:
            group.create_task(noting.run())
            while True:
                await self.clock.sleep(every.total_seconds())
                for key in self._to_look_at(every):
                    self._looks.ask(key)
                for key in self._history.due(self.clock.now()):
                    noting.ask(key)

    def _to_look_at(self, every: timedelta) -> list[ServiceKey]:
        """Every service that is not settled, and of the settled ones an even share of those seen long ago."""
        now = self.clock.now()
        unsettled = [key for key, last in self._seen.items() if not last.settled]
        old = sorted(
            (last.at, key)
            for key, last in self._seen.items()
            if last.settled and now - last.at >= _RELOOK_AFTER
        )
        share = math.ceil(len(self._seen) * (every / _RELOOK_AFTER))
        return unsettled + [key for _, key in old[:share]]

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
                    self._history.forget(key)
                else:
                    log.warning("observing %s failed: %s", key, "; ".join(missing))
                return ()
            last = self._seen.get(key)
            if last is None:
                shown = frozenset(workload_conditions(workload))
                before = frozenset(await self.observer.reported_conditions(key)) - shown
            else:
                before = last.conditions
            present, is_settled = lasting_conditions(workload, before), settled(workload)
            signals = tuple(self._signals(key, at, workload, before, present))
            scaled = None if last is None else scale_change(last.replicas, workload, AGENT_NAME)
            if scaled is not None:
                signals += (self._signal(key, at, scaled),)
            if signals:
                await self.intake.accept(signals)
            replicas = workload.desired_replicas
            self._seen[key] = _LastLook(at=at, conditions=present, settled=is_settled, replicas=replicas)
            self._history.saw(key, running_version(workload), self.historian.due(workload))
            return signals

    async def note(self, key: ServiceKey) -> bool:
        """Write a revision that stayed healthy long enough to history; True if it is there."""
        if key not in self._seen:
            return False
        workload = await self.observer.workload(key, [])
        if workload is None:
            return False
        if await self.historian.knows(key, workload, self.clock.now()):
            return True
        return await self.historian.note(key, await self.observer.look(key, self.clock.now()))

    async def _look_safely(self, key: ServiceKey) -> None:
        try:
            await self.look_at_workload(key)
        except AgentError as error:
            log.warning("observing %s failed: %s", key, error)

    async def _note_safely(self, key: ServiceKey, every: timedelta) -> None:
        version = self._history.version(key)
        written = False
        try:
            written = await self.note(key)
        except AgentError as error:
            log.warning("writing the history of %s failed: %s", key, error)
        self._history.tried(key, version, written=written, at=self.clock.now(), every=every)

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
            payload = ClusterCondition(
                condition=condition,
                present=is_present,
                message=condition_words(workload, condition) if is_present else "cleared",
                revision=workload.current_revision,
            )
            yield self._signal(key, at, payload)

    def _signal(self, key: ServiceKey, at: datetime, payload: Payload) -> Signal:
        return new_signal(
            key=key,
            source=WATCHED,
            observed_at=at,
            received_at=at,
            payload=payload,
            stale_after=self.stale_after,
        )
