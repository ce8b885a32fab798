"""What drives incidents: the real driver over the real loop, on both databases; promises 2 and 3."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from app.agent.heartbeat import renewed
from app.agent.identity.people import Person
from app.agent.ids import IncidentId, ServiceKey
from app.agent.intake.signals import new_signal
from app.agent.loop import Loop, Rest
from app.agent.models import (
    Approval,
    Deploy,
    DeployStatus,
    Incident,
    IncidentRecord,
    IncidentState,
    Note,
    TelemetryHealth,
)
from app.agent.ports.store import Store
from app.agent.ports.store.claims import Claim
from app.bootstrap import Adapters, Container, assemble
from app.clock import Clock, SystemClock
from app.errors import ConfigurationError, TransientError
from app.sandbox.metrics import SandboxMetrics
from app.sandbox.world import World as SimulatedWorld
from app.store import open_shared
from app.store.claims import SqlClaims
from app.store.database.port import Database
from app.store.incidents.repository import SqlIncidents
from app.testing import VirtualClock
from app.vitals import STILL_SECONDS, Vitals
from app.workers import LocalRunner, attended
from app.workers.driver import Driver
from tests.contract.eventually import eventually
from tests.contract.store_values import approval
from tests.repositories import database_of, exchanged
from tests.stories import settings_for

if TYPE_CHECKING:  # at run time pytest loads the plugin, and rewrites its assertions
    from tests.contract.postgres import PostgresCluster

pytest_plugins = ["tests.contract.postgres", "tests.contract.stores"]

QUICK = {
    "incident_settle_seconds": 0,
    "verify_soak_seconds": 0,
    "verify_timeout_seconds": 0.5,
    "verify_interval_seconds": 0.1,
}
"""An incident without a cluster comes to its end within a second."""


# ------------------------------------------------------------ what is watched


@dataclass(kw_only=True)
class Book:
    """What the workers of a test did, in the order in which it happened."""

    looked: int = 0
    """How often due work was asked for."""
    passes: list[tuple[IncidentId, datetime]] = field(default_factory=list)
    deeds: dict[IncidentId, list[tuple[str, str]]] = field(default_factory=lambda: defaultdict(list))
    """For each incident: taken, wrote or released, and by whom."""


class WatchedClaims(SqlClaims):
    """The real claims, with a book kept beside them."""

    def __init__(self, database: Database, book: Book) -> None:
        super().__init__(database)
        self.book = book
        self.handing_out: Callable[[], Awaitable[None]] | None = None
        """Awaited between the taking of due work and the answer."""
        self.let_go: Callable[[], Awaitable[None]] | None = None
        """Awaited between a release and its answer."""

    async def take_due(self, owner: str, lease: timedelta, now: datetime, limit: int) -> tuple[Claim, ...]:
        claims = await super().take_due(owner, lease, now, limit)
        self.book.looked += 1
        for claim in claims:
            self.book.deeds[claim.incident_id].append(("taken", owner))
        if claims and self.handing_out is not None:
            await self.handing_out()
        return claims

    async def release(self, claim: Claim, due_at: datetime | None = None) -> None:
        self.book.deeds[claim.incident_id].append(("released", claim.owner))
        await super().release(claim, due_at)
        if self.let_go is not None:
            await self.let_go()


class WatchedIncidents(SqlIncidents):
    """The real incidents, with a book kept beside them."""

    def __init__(self, database: Database, book: Book) -> None:
        super().__init__(database)
        self.book = book

    async def save(self, claim: Claim, incident: Incident, notes: Sequence[Note]) -> Incident:
        saved = await super().save(claim, incident, notes)
        self.book.deeds[incident.id].append(("wrote", claim.owner))
        return saved


def watched(store: Store, book: Book) -> tuple[Store, WatchedClaims, WatchedIncidents]:
    """The real store, with a book kept beside it."""
    database = database_of(store)
    claims, incidents = WatchedClaims(database, book), WatchedIncidents(database, book)
    return exchanged(store, claims=claims, incidents=incidents), claims, incidents


@dataclass(frozen=True, kw_only=True)
class WatchedLoop(Loop):
    """The real loop, with a book kept beside it, and something that may go wrong before each pass."""

    book: Book
    before: Callable[[IncidentId], Awaitable[None]] | None = None

    async def advance(
        self, incident_id: IncidentId, *, now_please: bool = False, requested_by: str | None = None
    ) -> Rest:
        self.book.passes.append((incident_id, self.clock.now()))
        if self.before is not None:
            await self.before(incident_id)
        return await super().advance(incident_id, now_please=now_please, requested_by=requested_by)


@dataclass(kw_only=True)
class Worker:
    """A wired agent without a cluster, and the driver that it would have."""

    container: Container
    store: Store
    claims: WatchedClaims
    incidents: WatchedIncidents
    runner: LocalRunner
    book: Book

    def driver(
        self, *, before: Callable[[IncidentId], Awaitable[None]] | None = None, **changes: object
    ) -> Driver:
        loop = self.container.loop
        parts = {each.name: getattr(loop, each.name) for each in fields(loop)}
        driver = Driver(
            claims=self.claims,
            loop=WatchedLoop(**parts, book=self.book, before=before),
            clock=self.container.clock,
            fleet=self.container.fleet,
        )
        for name, value in changes.items():
            setattr(driver, name, value)
        self.runner.driver = driver
        return driver

    async def report(self, number: int = 0, *, age: timedelta = timedelta(days=30)) -> IncidentId:
        """A failed deploy of a service, sent to intake; an old one is never acted on, and soon at its end."""
        now = self.container.clock.now()
        (accepted,) = await self.container.intake.accept(
            [
                new_signal(
                    key=ServiceKey(environment="prod", service=f"shop-{number}"),
                    source="http",
                    observed_at=now - age,
                    received_at=now,
                    payload=Deploy(version="2", status=DeployStatus.FAILED),
                    stale_after=self.container.stale_after,
                )
            ]
        )
        assert accepted.disposition.incident_id is not None
        return accepted.disposition.incident_id

    async def record(self, incident_id: IncidentId) -> IncidentRecord:
        found = await self.store.incidents.get(incident_id)
        assert found is not None
        return found

    async def closed(self, incident_id: IncidentId) -> bool:
        return (await self.record(incident_id)).incident.state.closed

    async def ends(self, incident_id: IncidentId) -> IncidentRecord:
        """Wait until others have brought an incident to its end."""
        await eventually(lambda: self.closed(incident_id), f"{incident_id} is at its end")
        return await self.record(incident_id)

    async def comes_to(self, incident_id: IncidentId, state: IncidentState) -> None:
        """Wait until others have brought an incident there."""

        async def there() -> bool:
            return (await self.record(incident_id)).incident.state is state

        await eventually(there, f"{incident_id} is {state}")


@asynccontextmanager
async def worker(
    directory: Path, database_url: str, *, clock: Clock | None = None, **changes: object
) -> AsyncIterator[Worker]:
    """An agent over a database, not driven yet."""
    settings = settings_for(directory, **{"database_url": database_url, **QUICK, **changes})
    opened, fleet = await open_shared(database_url)
    book, runner = Book(), LocalRunner()
    store, claims, incidents = watched(opened, book)
    container = assemble(
        settings, clock=clock or SystemClock(), store=store, world=Adapters(), fleet=fleet, runner=runner
    )
    try:
        yield Worker(
            container=container, store=store, claims=claims, incidents=incidents, runner=runner, book=book
        )
    finally:
        await container.close()


@asynccontextmanager
async def driving(driver: Driver) -> AsyncIterator[None]:
    """The driver at work until the block ends, then stopped in order."""
    running = asyncio.create_task(driver.run())
    try:
        yield
    finally:
        await driver.stop()
        await running


@pytest.fixture
def file_url(tmp_path: Path) -> str:
    """An SQLite file, for tests on a virtual clock: it waits for threads, and not for sockets."""
    return f"sqlite:///{tmp_path}/heal.db"


# ------------------------------------------------------------ driven


async def test_an_incident_is_driven_to_its_end_without_a_call(tmp_path: Path, database_url: str) -> None:
    """Accepting the signal is the only call."""
    async with worker(tmp_path, database_url) as agent, attended(agent.container, agent.runner):
        incident_id = await agent.report()
        assert (await agent.ends(incident_id)).incident.lesson is not None


async def test_an_incident_goes_on_after_a_restart(tmp_path: Path, database_url: str) -> None:
    """Stopped while it watched; the next start takes it to its end."""
    async with (
        worker(tmp_path, database_url, verify_timeout_seconds=3600) as first,
        attended(first.container, first.runner),
    ):
        incident_id = await first.report(age=timedelta(seconds=1))
        await first.comes_to(incident_id, IncidentState.VERIFYING)
    async with worker(tmp_path, database_url) as second, attended(second.container, second.runner):
        await second.comes_to(incident_id, IncidentState.PROPOSED)


async def test_an_incident_opened_while_no_worker_ran_is_found(tmp_path: Path, database_url: str) -> None:
    """A crash between the commit and the wake loses nothing."""
    async with worker(tmp_path, database_url) as agent:
        incident_id = await agent.report()
        assert (await agent.record(incident_id)).incident.state is IncidentState.OPEN
        assert agent.book.deeds == {}
        async with attended(agent.container, agent.runner):
            await agent.ends(incident_id)


async def test_what_a_dead_worker_held_goes_on_when_its_lease_has_run_out(
    tmp_path: Path, file_url: str
) -> None:
    """Without a release and without a peer that reaps the owner: the expiry alone is enough."""
    clock = VirtualClock()
    async with worker(tmp_path, file_url, clock=clock) as agent:
        incident_id = await agent.report()
        lease = timedelta(seconds=300)
        assert await agent.store.claims.take(incident_id, "dead", lease, clock.now()) is not None
        died = clock.now()
        async with driving(agent.driver(poll=timedelta(seconds=20))):
            await clock.run_until(_until_closed(agent, incident_id, clock))
        assert agent.book.passes[0][1] >= died + lease
        assert clock.now() < died + 2 * lease


async def test_a_second_agent_on_one_sqlite_file_is_refused(tmp_path: Path, file_url: str) -> None:
    """Promise 3: two processes would both believe that they hold every claim."""
    async with worker(tmp_path, file_url) as first, worker(tmp_path, file_url) as second:
        async with attended(first.container, first.runner):
            with pytest.raises(ConfigurationError, match="another agent runs on"):
                async with attended(second.container, second.runner):
                    raise AssertionError("it was let in")
        async with attended(second.container, second.runner):
            incident_id = await second.report()
            await second.ends(incident_id)


async def test_two_drivers_share_incidents_and_never_work_on_one_together(
    tmp_path: Path, postgres_url: str
) -> None:
    """Promise 3: fifty incidents, two workers: only the worker that took one writes it, until the release."""
    async with worker(tmp_path, postgres_url) as one, worker(tmp_path, postgres_url) as two:
        two.book = two.claims.book = two.incidents.book = one.book
        await one.container.fleet.enter(one.container.loop.owner)
        await two.container.fleet.enter(two.container.loop.owner)
        async with driving(one.driver(at_once=4)), driving(two.driver(at_once=4)):
            incidents = [await one.report(n) for n in range(50)]
            for incident_id in incidents:
                await one.ends(incident_id)
        for incident_id in incidents:
            _taken_in_turn(one.book.deeds[incident_id])
        wrote = {who for deeds in one.book.deeds.values() for what, who in deeds if what == "wrote"}
        assert wrote == {one.container.loop.owner, two.container.loop.owner}
        await one.container.fleet.leave()
        await two.container.fleet.leave()


def _taken_in_turn(deeds: list[tuple[str, str]]) -> None:
    holder: str | None = None
    for what, who in deeds:
        if what == "taken":
            assert holder is None, deeds
            holder = who
        else:
            assert holder == who, deeds
            holder = None if what == "released" else holder
    assert holder is None, deeds


async def _until_closed(agent: Worker, incident_id: IncidentId, clock: Clock) -> None:
    while not await agent.closed(incident_id):
        await clock.sleep(5)


# ------------------------------------------------------------ at rest


async def test_resting_incidents_cost_no_pass(tmp_path: Path, file_url: str) -> None:
    """A hundred that wait for people: in an hour no pass over any, and no more asking than without."""
    clock = VirtualClock()
    async with worker(tmp_path, file_url, clock=clock) as agent:
        for n in range(100):
            await _wait_for_people(agent, await agent.report(n), clock.now() + timedelta(days=3))
        poll = timedelta(seconds=30)
        async with driving(agent.driver(poll=poll)):
            await clock.advance(3600)
            assert agent.book.passes == []
            assert agent.book.looked <= timedelta(hours=1) / poll + 1


async def test_a_resting_incident_is_looked_at_when_its_time_comes(tmp_path: Path, file_url: str) -> None:
    """Not at the next poll: the driver knows when the next one is due."""
    clock = VirtualClock()
    async with worker(tmp_path, file_url, clock=clock) as agent:
        due_at = clock.now() + timedelta(seconds=700)
        incident_id = await agent.report()
        await _wait_for_people(agent, incident_id, due_at)
        async with driving(agent.driver(poll=timedelta(seconds=500))):
            await clock.run_until(lambda: bool(agent.book.passes))
        looked_at = agent.book.passes[0]
        assert looked_at[0] == incident_id
        assert due_at <= looked_at[1] <= due_at + timedelta(seconds=1)


async def test_an_answer_is_acted_on_without_waiting_for_the_poll(tmp_path: Path, postgres_url: str) -> None:
    """Given in another process: the worker is woken in the transaction that stores it."""
    async with worker(tmp_path, postgres_url) as here, worker(tmp_path, postgres_url) as there:
        asked = await _wait_for_people(
            here, await here.report(), here.container.clock.now() + timedelta(days=3)
        )
        await here.container.fleet.enter(here.container.loop.owner)
        driver = here.driver(poll=timedelta(days=1))
        async with driving(driver):
            await eventually(_true(lambda: here.book.looked > 0))
            assert here.book.passes == []
            await there.store.approvals.answer(
                asked.id, approve=False, by=Person(name="ann"), comment="", at=there.container.clock.now()
            )
            await eventually(_true(lambda: bool(here.book.passes)), "the answer is looked at")
        await here.container.fleet.leave()


async def _wait_for_people(agent: Worker, incident_id: IncidentId, until: datetime) -> Approval:
    """The incident as a pass leaves it that has asked people for an approval."""
    claim = await agent.store.claims.take(
        incident_id, "asker", timedelta(seconds=30), agent.container.clock.now()
    )
    assert claim is not None
    incident = (await agent.record(incident_id)).incident
    asked = replace(approval(incident), requested_at=agent.container.clock.now(), expires_at=until)
    await agent.store.approvals.request(
        claim, replace(incident, state=IncidentState.AWAITING_APPROVAL), asked, []
    )
    await agent.store.claims.release(claim, until)
    return asked


def _true(holds: Callable[[], bool]) -> Callable[[], Awaitable[bool]]:
    async def ask() -> bool:
        return holds()

    return ask


# ------------------------------------------------------------ when something goes wrong


async def test_a_defect_in_a_pass_is_reported_and_the_incident_tried_again(
    tmp_path: Path, file_url: str
) -> None:
    """An unexpected error is recorded in the timeline once, and the next pass continues."""
    clock = VirtualClock()
    left = [RuntimeError("unexpected error")] * 2

    async def broken(_: IncidentId) -> None:
        if left:
            raise left.pop()

    async with worker(tmp_path, file_url, clock=clock, verify_timeout_seconds=600) as agent:
        incident_id = await agent.report()
        async with driving(agent.driver(before=broken)):
            await clock.run_until(_until_closed(agent, incident_id, clock))
        record = await agent.record(incident_id)
        told = [entry.message for entry in record.timeline if "unexpected error" in entry.message]
        assert len(told) == 1
        assert "internal error" in told[0]
        assert len(agent.book.passes) >= 3


async def test_a_defect_that_stays_goes_to_a_person(tmp_path: Path, file_url: str) -> None:
    """Tried less and less often, then escalated; others are not held up."""
    clock = VirtualClock()
    async with worker(
        tmp_path, file_url, clock=clock, verify_timeout_seconds=600, verify_soak_seconds=60
    ) as agent:
        sick, well = await agent.report(1), await agent.report(2)

        async def broken(incident_id: IncidentId) -> None:
            if incident_id == sick:
                raise RuntimeError("this one alone")

        async with driving(agent.driver(before=broken)):
            await clock.run_until(_until_closed(agent, well, clock))
            assert not await agent.closed(sick)
            await clock.run_until(_until_closed(agent, sick, clock))
        record = await agent.record(sick)
        assert record.incident.state is IncidentState.ESCALATED
        assert "this one alone" in record.incident.summary
        assert len([each for each in agent.book.passes if each[0] == sick]) < 60


async def test_a_store_out_of_reach_is_tried_again_until_it_is_back(
    tmp_path: Path,
    database_url: str,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The driver says so and goes on asking; what is due when the store is back is moved on."""
    monkeypatch.setattr("app.store.database.sqlite.BUSY_SECONDS", 0.05)
    async with (
        worker(tmp_path, database_url, claim_lease_seconds=1) as agent,
        attended(agent.container, agent.runner),
    ):
        waiting = await agent.report(age=timedelta(seconds=1))
        with _out_of_reach(database_url, request):
            await eventually(_true(lambda: "claiming due incidents failed" in caplog.text))
        await agent.ends(waiting)
        await agent.ends(await agent.report(1))


@contextmanager
def _out_of_reach(database_url: str, request: pytest.FixtureRequest) -> Iterator[None]:
    """While this lasts, the database serves no call of the agent."""
    if database_url.startswith("sqlite"):
        holder = sqlite3.connect(database_url.removeprefix("sqlite:///"), isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        yield
        holder.execute("ROLLBACK")
        holder.close()
        return
    cluster: PostgresCluster = request.getfixturevalue("postgres")
    name = database_url.partition("@/")[2].partition("?")[0]
    cluster.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    ending = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"  # noqa: S608 - a name made here
    cluster.execute(ending)
    yield
    cluster.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")


# ------------------------------------------------------------ stopping


async def test_a_stopped_driver_lets_its_passes_end(tmp_path: Path, database_url: str) -> None:
    """And takes nothing new; its incident is released for the next worker."""
    entered, going = asyncio.Event(), asyncio.Event()

    async def slow(_: IncidentId) -> None:
        entered.set()
        await going.wait()

    async with worker(tmp_path, database_url) as agent:
        first = await agent.report(1)
        driver = agent.driver(before=slow)
        running = asyncio.create_task(driver.run())
        await asyncio.wait_for(entered.wait(), 120)
        stopping = asyncio.create_task(driver.stop())
        second = await agent.report(2)
        await driver.wake(second)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(stopping), 0.05)
        going.set()
        await asyncio.wait_for(stopping, 120)
        await asyncio.wait_for(running, 120)
        assert {incident_id for incident_id, _ in agent.book.passes} == {first}
        assert agent.book.deeds[first][-1][0] == "released"
        assert ("wrote", agent.container.loop.owner) in agent.book.deeds[first]
        assert agent.book.deeds[second] == []


async def test_a_pass_that_hangs_is_interrupted_and_its_incident_given_back(
    tmp_path: Path, file_url: str
) -> None:
    """The grace over, nothing is waited for any more; a successor finds the incident free and due."""
    entered = asyncio.Event()

    async def hangs(_: IncidentId) -> None:
        entered.set()
        await asyncio.Event().wait()

    async with worker(tmp_path, file_url) as agent:
        incident_id = await agent.report()
        driver = agent.driver(before=hangs)
        running = asyncio.create_task(driver.run())
        await asyncio.wait_for(entered.wait(), 30)
        await asyncio.wait_for(driver.stop(grace_seconds=0.05), 30)
        await asyncio.wait_for(running, 30)
        assert agent.book.deeds[incident_id][-1][0] == "released"
        now = agent.container.clock.now()
        [claim] = await agent.store.claims.take_due("successor", timedelta(seconds=30), now, 1)
        assert claim.incident_id == incident_id
        assert claim.interruptions == 0


async def test_a_driver_whose_every_pass_hangs_does_not_move(tmp_path: Path, file_url: str) -> None:
    """Readiness says so: it is up, its store answers, and nothing is worked on."""
    entered, now = asyncio.Event(), [0.0]

    async def hangs(_: IncidentId) -> None:
        entered.set()
        await asyncio.Event().wait()

    async with worker(tmp_path, file_url) as agent:
        await agent.report()
        driver = agent.driver(before=hangs, at_once=1, vitals=Vitals(monotonic=lambda: now[0]))
        running = asyncio.create_task(driver.run())
        await asyncio.wait_for(entered.wait(), 30)
        await driver.vitals.check()
        now[0] = STILL_SECONDS + 1
        await driver.wake(IncidentId("any"))
        with pytest.raises(TransientError, match="driver has not moved"):
            await driver.vitals.check()
        await asyncio.wait_for(driver.stop(grace_seconds=0.05), 30)
        await asyncio.wait_for(running, 30)


async def test_a_halted_driver_claims_nothing_while_its_passes_go_on(tmp_path: Path, file_url: str) -> None:
    """From the signal on, whatever becomes due is left to others."""
    entered, going = asyncio.Event(), asyncio.Event()

    async def slow(_: IncidentId) -> None:
        entered.set()
        await going.wait()

    async with worker(tmp_path, file_url) as agent:
        first = await agent.report(1)
        driver = agent.driver(before=slow)
        running = asyncio.create_task(driver.run())
        await asyncio.wait_for(entered.wait(), 30)
        driver.halt()
        second = await agent.report(2)
        going.set()
        await asyncio.wait_for(running, 30)
        assert agent.book.deeds[second] == []
        assert agent.book.deeds[first][-1][0] == "released"


async def test_a_step_that_takes_longer_than_a_lease_keeps_its_claim(tmp_path: Path, file_url: str) -> None:
    """While a call waits the claim is renewed: no peer gets the incident in the middle of the step."""
    clock = VirtualClock()
    async with worker(tmp_path, file_url, clock=clock) as agent:
        incident_id = await agent.report()
        lease = agent.container.loop.lease
        claim = await agent.store.claims.take(incident_id, "slow", lease, clock.now())
        assert claim is not None
        async with renewed(agent.store.claims, claim, lease, clock):
            await clock.advance(10 * lease.total_seconds())
            assert await agent.store.claims.take_due("peer", lease, clock.now(), 1) == ()
        await clock.advance(2 * lease.total_seconds())
        assert len(await agent.store.claims.take_due("peer", lease, clock.now(), 1)) == 1


async def test_the_loop_renews_its_claim_during_a_slow_step(tmp_path: Path, file_url: str) -> None:
    """The same in the real loop: a metric source takes ten leases to answer, and nothing is lost."""
    clock = VirtualClock()
    simulated = SimulatedWorld(clock)
    lease = timedelta(seconds=30)
    metrics = _Slow(simulated, clock, 10 * lease.total_seconds())
    opened, fleet = await open_shared(file_url)
    settings = settings_for(tmp_path, database_url=file_url, **QUICK)
    container = assemble(settings, clock=clock, store=opened, world=Adapters(metrics=metrics), fleet=fleet)
    book = Book()
    store, claims, incidents = watched(opened, book)
    agent = Worker(
        container=container,
        store=store,
        claims=claims,
        incidents=incidents,
        runner=LocalRunner(),
        book=book,
    )
    incident_id = await agent.report()
    passing = asyncio.ensure_future(container.loop.advance(incident_id))
    await clock.advance(5 * lease.total_seconds())
    assert not passing.done()
    assert await opened.claims.take_due("peer", lease, clock.now(), 1) == ()
    await clock.run_until(passing)
    assert (await agent.record(incident_id)).incident.diagnosis is not None
    await container.close()


class _Slow(SandboxMetrics):
    """A metric source that takes its time to say how the telemetry is."""

    def __init__(self, world: SimulatedWorld, clock: Clock, seconds: float) -> None:
        super().__init__(world)
        self._waits, self._seconds = clock, seconds

    async def telemetry(self, keys: Sequence[ServiceKey], at: datetime) -> TelemetryHealth:
        await self._waits.sleep(self._seconds)
        return await super().telemetry(keys, at)


async def test_what_is_handed_out_while_it_stops_is_brought_to_rest(tmp_path: Path, file_url: str) -> None:
    """The store's answer was on its way: stopping waits for the pass that follows from it."""
    asked, going = asyncio.Event(), asyncio.Event()

    async def on_its_way() -> None:
        asked.set()
        await going.wait()

    async with worker(tmp_path, file_url) as agent:
        incident_id = await agent.report()
        agent.claims.handing_out = on_its_way
        driver = agent.driver()
        running = asyncio.create_task(driver.run())
        await asyncio.wait_for(asked.wait(), 120)
        stopping = asyncio.create_task(driver.stop())
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(stopping), 0.05)
        going.set()
        await asyncio.wait_for(stopping, 120)
        running.cancel()  # as a process does that ends
        await asyncio.wait({running})
        _taken_in_turn(agent.book.deeds[incident_id])
        assert agent.book.deeds[incident_id][-1][0] == "released"


async def test_an_incident_taken_again_by_its_own_worker_is_not_forgotten(
    tmp_path: Path, file_url: str
) -> None:
    """Due again when it is released, it is handed out to the same worker before the pass has quite ended."""
    clock = VirtualClock()
    async with worker(
        tmp_path, file_url, clock=clock, verify_timeout_seconds=3600, verify_interval_seconds=600
    ) as agent:
        incident_id = await agent.report(age=timedelta(seconds=1))
        released, taken_again = asyncio.Event(), asyncio.Event()

        async def taken() -> None:
            if released.is_set():
                taken_again.set()

        async def lingering() -> None:
            if released.is_set():
                return
            released.set()
            peer = await agent.store.claims.take(incident_id, "run-once", timedelta(seconds=30), clock.now())
            assert peer is not None
            await SqlClaims.release(agent.claims, peer)  # due as it was while held: at once
            await agent.runner.wake(incident_id)
            await taken_again.wait()

        agent.claims.handing_out, agent.claims.let_go = taken, lingering
        async with driving(agent.driver()):
            try:
                await clock.run_until(lambda: len(agent.book.passes) >= 2, limit=20)
            finally:
                taken_again.set()  # when it failed, so that the pass under way can end
