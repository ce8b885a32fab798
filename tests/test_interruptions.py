"""Workers die during an action; the next worker checks its effect first (promises 2 and 3)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from app.agent.execution.recheck import MAX_DECISION_AGE
from app.agent.ids import IntentId
from app.agent.loop import MAX_INTERRUPTIONS
from app.agent.models import (
    Action,
    ActionName,
    IncidentRecord,
    IncidentState,
    IntentState,
    MetricSample,
    OutcomeKind,
    Snapshot,
)
from app.agent.ports.cluster import ClusterWriter
from app.agent.workload import TargetState
from app.bootstrap import Adapters
from app.errors import Conflict
from tests.stories import (
    ACTING,
    NAMESPACE,
    SERVICE,
    Story,
    innocent_release_beside_a_dying_dependency,
    messages,
    story,
)


class Killed(BaseException):
    """The process is gone; nothing may catch this but the test."""


@dataclass
class Deadly:
    """A writer over which the process dies, so many times before the effect or after it."""

    inner: ClusterWriter
    before: int = 0
    after: int = 0
    only: ActionName = ActionName.ROLLBACK
    effects: list[IntentId] = field(default_factory=list)

    async def apply(
        self, action: Action, intent_id: IntentId, target: TargetState, snapshot: Snapshot | None
    ) -> TargetState:
        if action.name is self.only and self.before > 0:
            self.before -= 1
            raise Killed
        state = await self.inner.apply(action, intent_id, target, snapshot)
        self.effects.append(intent_id)
        if action.name is self.only and self.after > 0:
            self.after -= 1
            raise Killed
        return state


@asynccontextmanager
async def deadly(directory: Path, **kills: Any) -> AsyncIterator[tuple[Story, Deadly]]:
    """An agent that may act and that dies over its writes, beside a service that has served well."""
    writers: list[Deadly] = []

    def connected(world: Adapters) -> Adapters:
        assert world.writer is not None
        writers.append(Deadly(world.writer, **kills))
        return replace(world, writer=writers[0])

    async with story(directory, connected=connected, on_file=True, **ACTING) as stage:
        stage.deploy()
        await stage.live(180)
        yield stage, writers[0]


async def dies(stage: Story) -> IncidentRecord:
    """Live until the process dies; the incident as it was left."""
    with pytest.raises(Killed):
        await stage.live_until_ended()
    record = await stage.newest()
    assert record is not None
    return record


async def test_an_effect_that_did_not_happen_is_tried_once_more(tmp_path: Path) -> None:
    """Died before the write: the successor sees no mark, counts a second attempt, and heals."""
    async with deadly(tmp_path, before=1) as (stage, writer):
        stage.world.release(NAMESPACE, SERVICE, "shop:2-crash")
        left = await dies(stage)
        assert [i.state for i in left.intents] == [IntentState.EXECUTING]
        await stage.restart()
        record = await stage.live_until_ended()
        assert record.incident.state is IncidentState.RECOVERED, messages(record.timeline)
        (intent,) = record.intents
        assert intent.attempts == 2
        assert writer.effects == [intent.id]


async def test_an_effect_that_did_happen_is_adopted(tmp_path: Path) -> None:
    """Died after the write: the object carries the mark, nothing is written again."""
    async with deadly(tmp_path, after=1) as (stage, writer):
        stage.world.release(NAMESPACE, SERVICE, "shop:2-crash")
        await dies(stage)
        await stage.restart()
        record = await stage.live_until_ended()
        assert record.incident.state is IncidentState.RECOVERED
        (intent,) = record.intents
        assert intent.attempts == 1
        assert writer.effects == [intent.id]
        assert "found executed" in messages(record.timeline)


async def test_an_effect_that_kills_twice_is_left_to_a_person(tmp_path: Path) -> None:
    """No third attempt: the outcome is unknown, and a person is asked to look."""
    async with deadly(tmp_path, before=5) as (stage, writer):
        stage.world.release(NAMESPACE, SERVICE, "shop:2-crash")
        await dies(stage)
        await stage.restart()
        await dies(stage)
        await stage.restart()
        record = await stage.live_until_ended()
        assert record.incident.state is IncidentState.ESCALATED
        (intent,) = record.intents
        assert intent.attempts == 2
        assert intent.outcome is not None
        assert intent.outcome.kind is OutcomeKind.UNKNOWN
        assert "2 attempts were interrupted" in record.incident.summary
        assert writer.effects == []
        assert writer.before == 3
        assert stage.image() == "shop:2-crash"


async def test_the_kill_switch_stops_a_second_attempt(tmp_path: Path) -> None:
    """Promise 11: the effect never took place, and is not brought about now."""
    async with deadly(tmp_path, before=1) as (stage, writer):
        stage.world.release(NAMESPACE, SERVICE, "shop:2-crash")
        await dies(stage)
        await stage.brake(engaged=True)
        await stage.restart()
        record = await stage.live_until_ended()
        assert record.incident.state is IncidentState.ESCALATED
        (intent,) = record.intents
        assert intent.attempts == 1
        assert intent.outcome is not None
        assert intent.outcome.kind is OutcomeKind.UNKNOWN
        assert "the kill switch is engaged now" in record.incident.summary
        assert writer.effects == []


async def test_an_interrupted_undo_is_tried_again_under_the_kill_switch(tmp_path: Path) -> None:
    """Promise 11: an undo of the agent's own change is never stopped, in no attempt."""
    async with deadly(tmp_path, before=1, only=ActionName.RESTORE) as (stage, writer):
        await innocent_release_beside_a_dying_dependency(stage)
        left = await dies(stage)
        assert left.intents[-1].action.name is ActionName.RESTORE
        await stage.brake(engaged=True)
        await stage.restart()
        record = await stage.live_until_ended()
        undo = record.intents[-1]
        assert undo.attempts == 2
        assert undo.outcome is not None
        assert undo.outcome.kind is OutcomeKind.DONE
        assert writer.effects == [i.id for i in record.intents]
        assert stage.image() == "shop:2"
        assert "Undo verified" in messages(record.timeline)


async def test_a_decision_that_lapsed_over_an_interruption_is_left_to_a_person(tmp_path: Path) -> None:
    """Promises 1 and 2: too late to try again, and the first request may still be on its way."""
    async with deadly(tmp_path, before=1) as (stage, writer):
        stage.world.release(NAMESPACE, SERVICE, "shop:2-crash")
        left = await dies(stage)
        await stage.clock.advance(MAX_DECISION_AGE.total_seconds() + 1)
        await stage.restart()
        record = await stage.live_until_ended()
        (lapsed,) = record.intents
        assert lapsed.id == left.intents[0].id
        assert lapsed.outcome is not None
        assert lapsed.outcome.kind is OutcomeKind.UNKNOWN
        assert writer.effects == []
        assert record.incident.state is IncidentState.ESCALATED, messages(record.timeline)


@dataclass
class Fatal:
    """A reader over which the process dies whenever it looks at the workload while `armed`."""

    inner: Any
    armed: bool = False
    deaths: int = 0

    def __getattr__(self, name: str) -> Any:
        if not (self.armed and name == "workload"):
            return getattr(self.inner, name)
        self.deaths += 1
        raise Killed


async def test_an_incident_that_kills_ten_workers_is_given_to_a_person(tmp_path: Path) -> None:
    """Whatever it is, it will kill the eleventh as well."""
    readers: list[Fatal] = []

    def connected(world: Adapters) -> Adapters:
        readers.append(Fatal(world.reader))
        return replace(world, reader=readers[0])

    async with story(tmp_path, connected=connected, on_file=True, **ACTING) as stage:
        stage.deploy()
        await stage.live(180)
        accepted = await stage.tell(MetricSample(crash_looping=True))
        incident_id = accepted.disposition.incident_id
        assert incident_id is not None
        await stage.clock.advance(30)
        readers[0].armed = True
        for _ in range(MAX_INTERRUPTIONS):
            with pytest.raises(Killed):
                await stage.agent.loop.advance(incident_id)
            await stage.restart()
        await stage.agent.loop.advance(incident_id)
        record = await stage.load(incident_id)
        assert readers[0].deaths == MAX_INTERRUPTIONS
        assert record.incident.state is IncidentState.ESCALATED
        assert "10 consecutive workers were interrupted" in record.incident.summary


async def test_nine_deaths_and_a_good_end_are_forgotten(tmp_path: Path) -> None:
    """Only interruptions in a row count: a pass that ended resets the count."""
    readers: list[Fatal] = []

    def connected(world: Adapters) -> Adapters:
        readers.append(Fatal(world.reader))
        return replace(world, reader=readers[0])

    async with story(tmp_path, connected=connected, on_file=True, **ACTING) as stage:
        stage.deploy()
        await stage.live(180)
        stage.world.release(NAMESPACE, SERVICE, "shop:2-crash")
        opened = await stage.live_until(lambda record: not record.incident.state.closed)
        for _ in range(2):
            await stage.clock.advance(30)
            readers[0].armed = True
            for _ in range(MAX_INTERRUPTIONS - 1):
                with pytest.raises(Killed):
                    await stage.agent.loop.advance(opened.incident.id)
                await stage.restart()
            readers[0].armed = False
            await stage.live(10)
        record = await stage.live_until_ended()
        assert record.incident.state is IncidentState.RECOVERED, messages(record.timeline)


async def test_run_once_waits_for_the_worker_that_holds_the_incident(tmp_path: Path) -> None:
    """It never runs beside another pass, and answers with what it did once it was let in."""
    async with story(tmp_path, on_file=True) as stage:
        stage.deploy()
        await stage.live(180)
        accepted = await stage.tell(MetricSample(crash_looping=True))
        incident_id = accepted.disposition.incident_id
        assert incident_id is not None
        store = stage.agent.store
        held = await store.claims.take(
            incident_id, "another worker", timedelta(seconds=20), stage.clock.now()
        )
        assert held is not None
        asked = asyncio.create_task(stage.agent.loop.run_once(SERVICE, NAMESPACE))
        await stage.clock.advance(10)
        assert not asked.done()
        assert len((await stage.load(incident_id)).timeline) == 1
        await store.claims.release(held, stage.clock.now())
        (passed,) = (await stage.clock.run_until(asked, limit=5)).passes
        assert passed.record.incident.diagnosis is not None
        assert passed.entries


async def test_run_once_takes_over_from_a_worker_whose_lease_ran_out(tmp_path: Path) -> None:
    """The takeover from a dead worker waits no longer than its lease."""
    async with story(tmp_path, on_file=True) as stage:
        stage.deploy()
        await stage.live(180)
        accepted = await stage.tell(MetricSample(crash_looping=True))
        incident_id = accepted.disposition.incident_id
        assert incident_id is not None
        store = stage.agent.store
        await store.claims.take(incident_id, "another worker", timedelta(seconds=20), stage.clock.now())
        asked = asyncio.create_task(stage.agent.loop.run_once(SERVICE, NAMESPACE))
        (passed,) = (await stage.clock.run_until(asked, limit=30)).passes
        assert passed.record.incident.diagnosis is not None


@dataclass
class Overtaken:
    """A writer whose first write meets a conflict, while another worker takes the incident."""

    inner: ClusterWriter
    overtake: Callable[[IntentId], Awaitable[None]] | None = None
    tries: int = 0

    async def apply(
        self, action: Action, intent_id: IntentId, target: TargetState, snapshot: Snapshot | None
    ) -> TargetState:
        self.tries += 1
        if self.tries == 1:
            assert self.overtake is not None
            await self.overtake(intent_id)
            raise Conflict("somebody wrote its status at the same moment")
        return await self.inner.apply(action, intent_id, target, snapshot)


async def test_a_write_is_repeated_only_under_the_claim_it_was_begun_under(tmp_path: Path) -> None:
    """A conflict would be tried again at once, but for the worker that took over meanwhile."""
    writers: list[Overtaken] = []

    def connected(world: Adapters) -> Adapters:
        assert world.writer is not None
        writers.append(Overtaken(world.writer))
        return replace(world, writer=writers[0])

    async with story(tmp_path, connected=connected, on_file=True, **ACTING) as stage:
        store, held = stage.agent.store, []

        async def overtake(_: IntentId) -> None:
            record = await stage.newest()
            assert record is not None
            later = stage.clock.now() + timedelta(hours=1)
            held.append(
                await store.claims.take(record.incident.id, "another worker", timedelta(hours=1), later)
            )

        writers[0].overtake = overtake
        stage.deploy()
        await stage.live(180)
        stage.world.release(NAMESPACE, SERVICE, "shop:2-crash")
        await stage.live_until(lambda _: bool(held))
        await stage.live(30)
        assert writers[0].tries == 1
        (claim,) = held
        assert claim is not None
        await store.claims.release(claim, stage.clock.now())
        record = await stage.live_until_ended()
        assert record.incident.state is IncidentState.RECOVERED, messages(record.timeline)
        assert writers[0].tries == 2
