"""Duties: one process at a time works, and stops before another could hold its lease."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pytest

from app.agent.ports.workers import Fleet
from app.clock import Clock, SystemClock
from app.errors import TransientError
from app.store import Alone, open_shared
from app.testing import VirtualClock
from app.workers.elected import ElectedTask
from tests.contract.eventually import eventually

pytest_plugins = ["tests.contract.postgres", "tests.contract.stores"]

LEASE = timedelta(seconds=30)


@dataclass(kw_only=True)
class Shift:
    """Work that lasts until it is stopped, and says when it began and stopped."""

    clock: Clock
    began: list[datetime] = field(default_factory=list)
    stopped: list[datetime] = field(default_factory=list)

    async def work(self) -> None:
        self.began.append(self.clock.now())
        try:
            await asyncio.Event().wait()
        finally:
            self.stopped.append(self.clock.now())

    @property
    def on(self) -> bool:
        return len(self.began) > len(self.stopped)

    async def is_on(self) -> bool:
        return self.on

    async def is_off(self) -> bool:
        return not self.on


class Ballot(Alone):
    """A fleet with configured votes: for, against, out of reach, or never."""

    def __init__(self) -> None:
        self.vote = "for"
        self.asked = 0

    async def elect(self, duty: str, owner: str, lease: timedelta, now: datetime) -> bool:
        self.asked += 1
        match self.vote:
            case "out of reach":
                raise TransientError("the database does not answer")
            case "never":
                await asyncio.Event().wait()
        return self.vote == "for" and await super().elect(duty, owner, lease, now)


@asynccontextmanager
async def standing(
    fleet: Fleet, shift: Shift, *, owner: str = "me", lease: timedelta = LEASE
) -> AsyncIterator[asyncio.Task[None]]:
    """A process that stands for election until the block ends."""
    duty = ElectedTask(
        name="watch", work=[("shift", shift.work)], fleet=fleet, owner=owner, clock=shift.clock, lease=lease
    )
    running = asyncio.create_task(duty.run())
    try:
        yield running
    finally:
        running.cancel()
        await asyncio.wait({running})


# ------------------------------------------------------------ on a virtual clock


async def test_the_elected_one_works_without_a_break() -> None:
    """Renewed again and again, the work is started once, and stopped when the process ends."""
    clock = VirtualClock()
    shift, fleet = Shift(clock=clock), Ballot()
    async with standing(fleet, shift):
        await clock.advance(20 * LEASE.total_seconds())
        assert (len(shift.began), shift.stopped) == (1, [])
        assert fleet.asked > 20
    assert not shift.on


async def test_a_process_that_is_not_elected_does_not_work_and_keeps_asking() -> None:
    """Once the duty is free, it is taken up within a lease."""
    clock = VirtualClock()
    shift, fleet = Shift(clock=clock), Ballot()
    fleet.vote = "against"
    async with standing(fleet, shift):
        await clock.advance(10 * LEASE.total_seconds())
        assert shift.began == []
        fleet.vote = "for"
        await clock.advance(LEASE.total_seconds())
        assert shift.on


@pytest.mark.parametrize("vote", ["against", "out of reach", "never"])
async def test_work_stops_before_a_lease_that_cannot_be_renewed_runs_out(vote: str) -> None:
    """Lost, out of reach, or without any answer at all: another process may lead when the lease is over."""
    clock = VirtualClock()
    shift, fleet = Shift(clock=clock), Ballot()
    async with standing(fleet, shift):
        await clock.run_until(lambda: fleet.asked == 3)
        over = clock.now() + LEASE
        fleet.vote = vote
        await clock.run_until(lambda: not shift.on)
        assert shift.stopped[0] < over
        fleet.vote = "for"
        await clock.advance(LEASE.total_seconds())
        assert shift.on


async def test_work_that_fails_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unexpected error ends one attempt, and not the duty."""
    monkeypatch.setattr("app.workers.elected._RESTART_AFTER_SECONDS", 0.01)
    attempts = 0
    again = asyncio.Event()

    async def failing() -> None:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            raise RuntimeError("unexpected error")
        again.set()
        await asyncio.Event().wait()

    duty = ElectedTask(
        name="watch",
        work=[("failing", failing)],
        fleet=Alone(),
        owner="me",
        clock=SystemClock(),
        lease=LEASE,
    )
    running = asyncio.create_task(duty.run())
    await asyncio.wait_for(again.wait(), 120)
    running.cancel()
    await asyncio.wait({running})


# ------------------------------------------------------------ over PostgreSQL


async def test_when_the_leader_dies_another_leads(postgres_url: str) -> None:
    """Silent until its lease ran out, or gone regularly: another takes over, one at a time."""
    lease = timedelta(seconds=1.5)
    stores, fleets = [], []
    for owner in ("one", "two"):
        store, fleet = await open_shared(postgres_url)
        await fleet.enter(owner)
        stores.append(store)
        fleets.append(fleet)
    clock = SystemClock()
    one, two = Shift(clock=clock), Shift(clock=clock)
    async with standing(fleets[0], one, owner="one", lease=lease) as leader:
        await eventually(one.is_on, "one leads")
        async with standing(fleets[1], two, owner="two", lease=lease):
            assert not two.on
            leader.cancel()  # it falls silent, and gives nothing back
            await asyncio.wait({leader})
            await eventually(two.is_on, "two leads when the lease has run out")
            assert two.began[0] >= one.stopped[0]
        await eventually(lambda: fleets[0].elect("watch", "one", timedelta(days=1), clock.now()))
    third = Shift(clock=clock)
    async with standing(fleets[1], third, owner="two", lease=lease):
        assert not third.on
        await fleets[0].leave()  # the lease of a day is free at once
        await eventually(third.is_on, "two leads when one has left")
    await fleets[1].leave()
    for store in stores:
        await store.close()


async def test_a_leader_that_resigns_is_followed_at_the_next_asking(postgres_url: str) -> None:
    """The one who follows need not wait for the lease."""
    store, fleet = await open_shared(postgres_url)
    clock = SystemClock()
    assert await fleet.elect("watch", "before", timedelta(days=1), clock.now())
    shift = Shift(clock=clock)
    async with standing(fleet, shift, owner="after", lease=timedelta(seconds=0.6)):
        assert not await fleet.elect("watch", "third", timedelta(seconds=1), clock.now())
        await fleet.resign("watch", "before")
        await eventually(shift.is_on, "the next one leads")
    await store.close()
