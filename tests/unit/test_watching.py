"""The watcher and the poller at work: neither waits for the other, and both work side by side in bounds."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

import pytest

from app.agent.ids import ServiceKey
from app.agent.models import (
    ChangeKind,
    IncidentRecord,
    SliSample,
    TelemetryHealth,
    Trigger,
)
from app.agent.ports.cluster import ClusterReader
from app.agent.ports.metrics import MetricSource
from app.agent.workload import WorkloadView
from app.bootstrap import Adapters
from app.clock import Clock
from app.connectors.observability import polled
from app.errors import TransientError
from app.testing import VirtualClock
from app.workers.fanout import Fanout
from app.workers.history_schedule import HistorySchedule
from tests.stories import KEY, NAMESPACE, SERVICE, Story, story

FOREVER_SECONDS = 1e8


@dataclass(kw_only=True)
class Silent:
    """A metric source that takes every question and never answers."""

    clock: Clock | None = None
    asked: int = 0

    async def sli(self, key: ServiceKey, at: datetime) -> SliSample:
        await self._never(f"{key} at {at}")

    async def sli_range(
        self, key: ServiceKey, start: datetime, end: datetime, step: timedelta
    ) -> tuple[SliSample, ...]:
        await self._never(f"{key} from {start} to {end} by {step}")

    async def telemetry(self, keys: object, at: datetime) -> TelemetryHealth:
        await self._never(f"{keys} at {at}")

    async def _never(self, question: str) -> NoReturn:
        self.asked += 1
        assert self.clock is not None
        await self.clock.sleep(FOREVER_SECONDS)
        raise TransientError(f"no answer to {question}")


@asynccontextmanager
async def working(*work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Tasks for the length of the block."""
    tasks = [asyncio.create_task(each) for each in work]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_crash_is_seen_while_every_metric_query_hangs(tmp_path: Path) -> None:
    """Pod conditions become signals without waiting for metrics, however many services there are."""
    silent = Silent()

    def mute(world: Adapters) -> Adapters:
        source: MetricSource = silent
        return replace(world, metrics=source)

    async with story(tmp_path, connected=mute) as stage:
        silent.clock = stage.clock
        stage.deploy()
        for number in range(20):
            stage.deploy(f"other-{number}")
        every = timedelta(seconds=15)
        async with working(stage.watcher.run(), stage.watcher.recheck(every), stage.poller.run()):
            await stage.clock.advance(60)
            stage.world.release(NAMESPACE, SERVICE, "shop:2-crash")
            found = await _seen(stage, 240)
    assert Trigger.CRASH_LOOP in found.incident.triggers
    assert silent.asked > 0


async def test_replicas_that_a_person_sets_are_remembered_as_a_change(tmp_path: Path) -> None:
    """A service that is overloaded since then is not explained by its release, nor by more requests."""
    async with story(tmp_path) as stage:
        stage.deploy()
        begun = stage.clock.now()
        async with working(stage.watcher.run(), stage.watcher.recheck(timedelta(seconds=15))):
            await stage.clock.advance(60)
            stage.world.set_replicas(NAMESPACE, SERVICE, 1)
            await stage.clock.advance(30)
            stage.world.autoscale(NAMESPACE, SERVICE, 2)
            await stage.clock.advance(30)
        found = await stage.agent.store.signals.changes(begun, of=KEY)
    (change,) = [one for one in found if one.kind is ChangeKind.SCALE]
    assert change.summary.endswith("scaled it from 3 to 1 replica")
    assert change.at - begun >= timedelta(seconds=60)


async def _seen(stage: Story, within_seconds: float) -> IncidentRecord:
    until = stage.clock.now() + timedelta(seconds=within_seconds)
    while stage.clock.now() < until:
        await stage.clock.advance(5)
        record = await stage.newest(KEY)
        if record is not None:
            return record
    raise AssertionError(f"no incident within {within_seconds} s")


@dataclass(kw_only=True)
class Slow:
    """Work that takes a second for each service, and notes what ran beside what."""

    clock: VirtualClock
    running: set[ServiceKey] = field(default_factory=set)
    most: int = 0
    began: list[ServiceKey] = field(default_factory=list)

    async def work(self, key: ServiceKey) -> None:
        assert key not in self.running
        self.running.add(key)
        self.began.append(key)
        self.most = max(self.most, len(self.running))
        await self.clock.sleep(1)
        self.running.discard(key)


def keys(count: int) -> list[ServiceKey]:
    return [ServiceKey(environment="prod", service=f"s-{number}") for number in range(count)]


async def test_services_are_looked_at_side_by_side_within_the_bound() -> None:
    """Forty services at a second each, eight at a time, take five seconds."""
    clock = VirtualClock()
    slow = Slow(clock=clock)
    line = Fanout(work=slow.work, at_once=8)
    for key in keys(40):
        line.ask(key)
        line.ask(key)
    async with working(line.run()):
        await clock.advance(5)
    assert slow.began == keys(40)
    assert slow.most == 8


async def test_a_change_is_looked_at_before_what_only_exists() -> None:
    """A crash right after start does not wait for thousands of first looks; nothing is done twice."""
    clock = VirtualClock()
    slow = Slow(clock=clock)
    line = Fanout(work=slow.work, at_once=1)
    known = keys(6)
    for key in known[:5]:
        line.ask(key)
    line.ask(known[3], urgent=True)
    line.ask(known[5], urgent=True)
    async with working(line.run()):
        await clock.advance(10)
    assert slow.began == [known[3], known[5], known[0], known[1], known[2], known[4]]


@dataclass(kw_only=True)
class Counting:
    """A reader that counts the looks at workloads; everything else is the reader behind it."""

    reader: ClusterReader
    looked_at: list[ServiceKey] = field(default_factory=list)

    async def workload(self, key: ServiceKey) -> WorkloadView | None:
        self.looked_at.append(key)
        return await self.reader.workload(key)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.reader, name)


async def test_a_settled_service_is_not_looked_at_again_and_again(tmp_path: Path) -> None:
    """Without a change it costs a look in ten minutes; one that time may change is looked at each time."""
    readers: list[Counting] = []

    def counted(world: Adapters) -> Adapters:
        assert world.reader is not None
        readers.append(Counting(reader=world.reader))
        return replace(world, reader=readers[0])

    async with story(tmp_path, connected=counted) as stage:
        stage.deploy()
        for number in range(20):
            stage.deploy(f"other-{number}")
        async with working(stage.watcher.run(), stage.watcher.recheck(timedelta(seconds=15))):
            await stage.clock.advance(60)
            readers[0].looked_at.clear()
            await stage.clock.advance(300)
            quiet = len(readers[0].looked_at)
            stage.world.release(NAMESPACE, SERVICE, "shop:2-missing")
            await stage.clock.advance(60)
            readers[0].looked_at.clear()
            await stage.clock.advance(60)
    assert quiet <= 2 * 21
    assert readers[0].looked_at.count(KEY) >= 4
    assert set(readers[0].looked_at) == {KEY}


def test_a_version_is_considered_when_it_may_be_trusted_and_then_less_often() -> None:
    """Too young, on record, or faulty: not at all; not trusted for another reason: after growing waits."""
    at, every = datetime(2026, 2, 20, 17, 0, tzinfo=UTC), timedelta(seconds=15)
    [key] = keys(1)
    schedule = HistorySchedule()
    schedule.saw(key, "v1", at + timedelta(minutes=5))
    assert schedule.due(at) == []
    considered = []
    for second in range(300, 3600, 15):
        now = at + timedelta(seconds=second)
        for _ in schedule.due(now):
            considered.append(second)
            schedule.tried(key, "v1", written=False, at=now, every=every)
            schedule.saw(key, "v1", at)  # looks in between do not bring it forward
    assert considered[:6] == [300, 315, 345, 405, 525, 765]
    assert max(b - a for a, b in itertools.pairwise(considered)) == 600
    schedule.saw(key, "v1", None)
    assert schedule.due(at + timedelta(days=1)) == []
    schedule.saw(key, "v2", at)
    schedule.tried(key, "v1", written=True, at=at, every=every)
    assert schedule.due(at) == [key]
    schedule.tried(key, "v2", written=True, at=at, every=every)
    schedule.saw(key, "v2", at)
    assert schedule.due(at + timedelta(days=1)) == []
    schedule.saw(key, "v3", at)
    assert schedule.due(at) == [key]
    schedule.forget(key)
    assert schedule.due(at) == []


async def test_what_is_asked_for_meanwhile_is_done_once_more() -> None:
    """The last look always began after the last event; ten events during one look are one more look."""
    clock = VirtualClock()
    slow = Slow(clock=clock)
    line = Fanout(work=slow.work, at_once=8)
    [key] = keys(1)
    async with working(line.run()):
        line.ask(key)
        await clock.settle()
        for _ in range(10):
            line.ask(key)
        await clock.advance(10)
    assert slow.began == [key, key]


@pytest.mark.parametrize("count", [1, 8])
async def test_a_sample_is_handed_on_as_soon_as_it_is_there(count: int) -> None:
    """One service whose query hangs delays no other breach."""

    class Uneven(Silent):
        async def sli(self, key: ServiceKey, at: datetime) -> SliSample:
            if key == stuck:
                return await super().sli(key, at)
            return SliSample(at=at, error_rate=0.5)

    clock = VirtualClock()
    stuck, *others = keys(count + 1)
    answers = polled(Uneven(clock=clock), [stuck, *others], clock.now(), concurrency=8)
    found = {(await anext(answers))[0] for _ in others}
    assert found == set(others)
    await answers.aclose()
