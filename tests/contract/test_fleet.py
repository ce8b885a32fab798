"""The contract of the fleet: who is alive, who leads, who rang; alone, on SQLite, on PostgreSQL."""

from __future__ import annotations

import asyncio
import fcntl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import psycopg
import pytest

from app.agent.ids import IncidentId
from app.agent.ports.store import Store
from app.agent.ports.workers import Fleet
from app.errors import ClaimLost, ConfigurationError
from app.store import Alone, open_shared
from app.store.database.locks import Space
from testbed.freezing import freeze, thaw
from tests.contract.eventually import eventually
from tests.contract.fleet_member import LONG, Member, member
from tests.contract.store_values import LEASE, MINUTE, NOW, claimed, key, opened

pytest_plugins = ["tests.contract.postgres", "tests.contract.stores"]

WATCH = "watch"


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """What one process of the agent has in hand; several of them live in one test."""

    store: Store
    fleet: Fleet

    async def due(self, owner: str, at: datetime = NOW) -> list[IncidentId]:
        """What it is given to do."""
        return [claim.incident_id for claim in await self.store.claims.take_due(owner, LEASE, at, 99)]


@pytest.fixture
async def here(postgres_url: str) -> AsyncIterator[Process]:
    """A process over PostgreSQL that has entered as `here`."""
    store, fleet = await open_shared(postgres_url)
    await fleet.enter("here")
    yield Process(store=store, fleet=fleet)
    await fleet.leave()
    await store.close()


@pytest.fixture
async def there(postgres_url: str) -> AsyncIterator[Process]:
    """Another one, over the same database, that has entered as `there`."""
    store, fleet = await open_shared(postgres_url)
    await fleet.enter("there")
    yield Process(store=store, fleet=fleet)
    await fleet.leave()
    await store.close()


def asked(url: str, statement: str, *values: object) -> list[tuple[object, ...]]:
    """The rows of a statement, run by a client outside the fleet."""
    with psycopg.connect(url, autocommit=True) as connection:
        found = connection.execute(statement.encode(), values)
        return found.fetchall() if found.description else []


def counted(url: str) -> list[str]:
    """Who is on record as alive."""
    return [str(owner) for (owner,) in asked(url, "SELECT owner FROM workers ORDER BY owner")]


def cut_off(url: str, owner: str) -> None:
    """Have the server end the connection that stands for an owner's being alive."""
    [(ended,)] = asked(
        url,
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_locks JOIN workers ON workers.number = objid"
        " WHERE locktype = 'advisory' AND classid = %s AND owner = %s",
        int(Space.ALIVE),
        owner,
    )
    assert ended


async def entered(stack: AsyncExitStack, url: str, owner: str) -> Member:
    """A process of its own that has entered."""
    found = await stack.enter_async_context(member(url, owner))
    assert await found.hear() == "entered"
    return found


# ------------------------------------------------------------ every kind


@pytest.fixture(params=["alone", "sqlite", "postgresql"])
def fleet_url(request: pytest.FixtureRequest, tmp_path: Path) -> str | None:
    """Where a fleet of each kind meets; None for the one that shares nothing."""
    match request.param:
        case "alone":
            return None
        case "sqlite":
            return f"sqlite:///{tmp_path}/heal.db"
        case _:
            url: str = request.getfixturevalue("postgres_url")
            return url


@pytest.fixture
async def fleet(fleet_url: str | None) -> AsyncIterator[Fleet]:
    """A fleet of each kind without members."""
    if fleet_url is None:
        yield Alone()
        return
    store, found = await open_shared(fleet_url)
    yield found
    await found.leave()
    await store.close()


async def test_the_only_process_is_alive_leads_and_leaves(fleet: Fleet) -> None:
    """It has no dead members, keeps every duty for as long as it likes, and leaving twice is harmless."""
    await fleet.enter("me")
    assert await fleet.reap() == ()
    for minutes in range(3):
        assert await fleet.elect(WATCH, "me", MINUTE, NOW + minutes * MINUTE)
    await fleet.resign(WATCH, "me")
    assert await fleet.elect(WATCH, "me", MINUTE, NOW)
    assert await fleet.reap() == ()
    await fleet.leave()
    await fleet.leave()
    assert await fleet.reap() == ()


async def test_it_can_enter_again_after_leaving(fleet: Fleet) -> None:
    """A restart within one process, as tests and reloads do it."""
    for _ in range(2):
        await fleet.enter("me")
        assert await fleet.elect(WATCH, "me", MINUTE, NOW)
        await fleet.leave()


async def test_waiting_for_the_bell_can_be_given_up(fleet: Fleet) -> None:
    """A process that stops does not wait for a notification that never comes, and receives the next one."""
    await fleet.enter("me")
    for _ in range(3):
        waiting = asyncio.create_task(fleet.woken())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait({waiting})
        assert waiting.done()


# ------------------------------------------------------------ life and death, on PostgreSQL


async def test_a_killed_process_is_reaped_and_its_work_is_free_at_once(
    here: Process, postgres_url: str
) -> None:
    """kill -9: the first peer to look voids its claims and leases; no lease has to run out."""
    first, second = await opened(here.store, key(1)), await opened(here.store, key(2))
    async with AsyncExitStack() as stack:
        dead = await entered(stack, postgres_url, "dead")
        assert await dead.tell("claim", first.id) == "token 1"
        assert await dead.tell("claim", second.id) == "token 1"
        assert await dead.tell("elect", WATCH) == "True"
        assert await here.due("here") == []
        assert not await here.fleet.elect(WATCH, "here", LEASE, NOW)
        await dead.kill()
    assert await eventually(here.fleet.reap, "the dead one is found") == ("dead",)
    assert counted(postgres_url) == ["here"]
    claims = await here.store.claims.take_due("here", LEASE, NOW, 9)
    assert {claim.incident_id for claim in claims} == {first.id, second.id}
    assert {(claim.token, claim.interruptions) for claim in claims} == {(2, 1)}
    assert await here.fleet.elect(WATCH, "here", LEASE, NOW)
    assert await here.fleet.reap() == ()


async def test_of_peers_that_look_at_once_one_reaps_the_dead(
    here: Process, there: Process, postgres_url: str
) -> None:
    """And an interruption counts once."""
    incident = await opened(here.store)
    async with AsyncExitStack() as stack:
        dead = await entered(stack, postgres_url, "dead")
        await dead.tell("claim", incident.id)
        await dead.kill()
    found: list[str] = []

    async def look() -> bool:
        for who in await asyncio.gather(*(each.fleet.reap() for each in (here, there))):
            found.extend(who)
        return bool(found)

    await eventually(look)
    assert found == ["dead"]
    assert [claim.interruptions for claim in await here.store.claims.take_due("here", LEASE, NOW, 9)] == [1]


async def test_the_living_are_never_reaped(here: Process, there: Process, postgres_url: str) -> None:
    """However often peers look; not even one that is stopped, which may go on at any moment."""
    incident = await opened(here.store)
    async with AsyncExitStack() as stack:
        other = await entered(stack, postgres_url, "other")
        assert await other.tell("claim", incident.id) == "token 1"
        freeze(other.process.pid)
        try:
            for _ in range(10):
                assert not any(await asyncio.gather(here.fleet.reap(), there.fleet.reap()))
            assert await here.due("here") == []
        finally:
            thaw(other.process.pid)
        assert await other.tell("claim", incident.id) == "token 1"
        assert counted(postgres_url) == ["here", "other", "there"]


async def test_a_member_that_leaves_is_gone_at_once(here: Process, postgres_url: str) -> None:
    """No peer has to reap it: claims and leases are free when it is gone."""
    incident = await opened(here.store)
    async with AsyncExitStack() as stack:
        leaving = await entered(stack, postgres_url, "leaving")
        await leaving.tell("claim", incident.id)
        assert await leaving.tell("elect", WATCH) == "True"
        await leaving.dismiss()
    assert counted(postgres_url) == ["here"]
    assert await here.due("here") == [incident.id]
    assert await here.fleet.elect(WATCH, "here", LEASE, NOW)
    assert await here.fleet.reap() == ()


async def test_a_broken_connection_is_replaced_and_counts(
    here: Process, there: Process, postgres_url: str
) -> None:
    """It keeps what it held, is not taken for dead from then on, and would be found dead again."""
    incident = await opened(here.store)
    claim = await claimed(here.store, incident, "here")
    cut_off(postgres_url, "here")
    assert await here.fleet.reap() == ()
    assert counted(postgres_url) == ["here", "there"]
    assert await there.fleet.reap() == ()
    await here.store.incidents.save(claim, incident, [])
    cut_off(postgres_url, "here")
    assert await there.fleet.reap() == ("here",)


async def test_a_live_worker_declared_dead_comes_back(
    here: Process, there: Process, postgres_url: str
) -> None:
    """Cut off for a moment, its work went to a peer; its late writes are refused, and it is counted again."""
    incident = await opened(here.store)
    claim = await claimed(here.store, incident, "here")
    cut_off(postgres_url, "here")
    assert await there.fleet.reap() == ("here",)
    assert await there.due("there") == [incident.id]
    with pytest.raises(ClaimLost):
        await here.store.incidents.save(claim, incident, [])
    assert await here.fleet.reap() == ()
    assert counted(postgres_url) == ["here", "there"]
    assert await there.fleet.reap() == ()


async def test_one_that_is_not_on_record_any_more_enters_again(here: Process, postgres_url: str) -> None:
    """Its connection stands, its row is gone: without a row no peer would ever find it dead."""
    asked(postgres_url, "DELETE FROM workers")
    assert await here.fleet.reap() == ()
    assert counted(postgres_url) == ["here"]
    cut_off(postgres_url, "here")  # there is a lock behind the row


async def test_after_a_restart_of_the_database_the_first_one_back_declares_no_peer_dead(
    here: Process, there: Process, postgres_url: str
) -> None:
    """All connections broke: the others are as alive as the one that is back first."""
    incident = await opened(here.store)
    claim = await claimed(there.store, incident, "there")
    for owner in ("here", "there"):
        cut_off(postgres_url, owner)
    assert await here.fleet.reap() == ()
    assert await there.fleet.reap() == ()
    assert counted(postgres_url) == ["here", "there"]
    await there.store.incidents.save(claim, incident, [])


async def test_entering_that_is_given_up_leaves_no_connection(postgres_url: str) -> None:
    """Cancelled while the server was slow: nothing stays behind that could count as alive."""
    store, fleet = await open_shared(postgres_url)
    with psycopg.connect(postgres_url) as slow:
        slow.execute("LOCK TABLE workers IN ACCESS EXCLUSIVE MODE")
        entering = asyncio.create_task(fleet.enter("newcomer"))
        waiting = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        waiting += " AND datname = current_database()"
        [(pid,)] = await eventually(lambda: asyncio.to_thread(asked, postgres_url, waiting), "it waits")
        entering.cancel()
        with pytest.raises(asyncio.CancelledError) as given_up:
            await entering
        slow.rollback()
    there = "SELECT 1 FROM pg_stat_activity WHERE pid = %s"

    async def gone() -> bool:
        return not await asyncio.to_thread(asked, postgres_url, there, pid)

    await eventually(gone, "its connection is closed")
    assert counted(postgres_url) == []
    del given_up  # until here its traceback kept the connection from being collected
    await store.close()


# ------------------------------------------------------------ waking workers


async def test_an_incident_that_opens_in_another_process_rings(here: Process, postgres_url: str) -> None:
    """In the transaction that opens it, so that a worker that is notified finds it due."""
    await here.fleet.woken()  # entering may ring, for what happened before
    async with AsyncExitStack() as stack:
        other = await entered(stack, postgres_url, "other")
        ringing = asyncio.create_task(here.fleet.woken())
        incident_id = await other.tell("open", "shop")
        await asyncio.wait_for(ringing, 120)
        assert await here.due("here") == [incident_id]


async def test_voided_claims_ring(here: Process, there: Process) -> None:
    """The worker that finds a dead one notifies the others that there is work."""
    await claimed(here.store, await opened(here.store), "dead")

    async def quiet() -> bool:
        try:
            await asyncio.wait_for(here.fleet.woken(), 0.2)
        except TimeoutError:
            return True
        return False

    await eventually(quiet, "what rang before is heard")
    ringing = asyncio.create_task(here.fleet.woken())
    await there.store.claims.release_owner("dead")
    await asyncio.wait_for(ringing, 120)


async def test_the_bell_is_heard_again_after_a_broken_connection(
    here: Process, there: Process, postgres_url: str
) -> None:
    """What rang in between is made up for by one ring, and the next ones come through."""
    await here.fleet.woken()
    cut_off(postgres_url, "here")
    await opened(there.store, key(1))
    await here.fleet.reap()
    await asyncio.wait_for(here.fleet.woken(), 120)
    ringing = asyncio.create_task(here.fleet.woken())
    await opened(there.store, key(2))
    await asyncio.wait_for(ringing, 120)


# ------------------------------------------------------------ leading


async def test_of_many_that_stand_for_election_one_leads(here: Process, there: Process) -> None:
    """Ten at once over two processes; another duty is another election."""
    for duty in (WATCH, "sweep"):
        votes = await asyncio.gather(
            *((here, there)[n % 2].fleet.elect(duty, f"owner {n}", LEASE, NOW) for n in range(10))
        )
        assert sorted(votes) == [False] * 9 + [True]


async def test_a_lease_is_renewed_by_its_holder_and_runs_out_without(here: Process, there: Process) -> None:
    """Until the last moment no other process leads; after it another may, and the old leader may not."""
    assert await here.fleet.elect(WATCH, "here", LEASE, NOW)
    assert await here.fleet.elect(WATCH, "here", LEASE, NOW + LEASE / 2)
    assert not await there.fleet.elect(WATCH, "there", LEASE, NOW + LEASE)
    assert await there.fleet.elect(WATCH, "there", LEASE, NOW + LEASE * 3 / 2)
    assert not await here.fleet.elect(WATCH, "here", LEASE, NOW + LEASE * 3 / 2)


async def test_a_process_that_resigns_frees_its_own_duty_alone(here: Process, there: Process) -> None:
    """At once; a resignation by another process changes nothing."""
    assert await here.fleet.elect(WATCH, "here", LONG, NOW)
    assert await there.fleet.elect("sweep", "there", LONG, NOW)
    await there.fleet.resign(WATCH, "there")
    assert not await there.fleet.elect(WATCH, "there", LONG, NOW)
    await here.fleet.resign(WATCH, "here")
    assert await there.fleet.elect(WATCH, "there", LONG, NOW)
    assert not await here.fleet.elect("sweep", "here", LONG, NOW)


# ------------------------------------------------------------ one process to a file, on SQLite


async def test_a_second_process_on_one_file_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    """Promise 3: both would believe that they hold every claim. Death frees the file like a good leave."""
    url = f"sqlite:///{tmp_path}/heal.db"
    store, fleet = await open_shared(url)
    for killed in (True, False):
        async with AsyncExitStack() as stack:
            first = await entered(stack, url, "embedded")
            with pytest.raises(ConfigurationError, match=r"another agent runs on heal\.db"):
                await fleet.enter("embedded")
            await (first.kill() if killed else first.dismiss())
        await fleet.enter("embedded")
        await fleet.leave()
    await store.close()


async def test_what_a_killed_predecessor_held_is_free_when_its_successor_starts(tmp_path: Path) -> None:
    """No other process can hold anything; the interruption counts, and its late token would be refused."""
    url = f"sqlite:///{tmp_path}/heal.db"
    store, fleet = await open_shared(url)
    incident = await opened(store)
    async with AsyncExitStack() as stack:
        first = await entered(stack, url, "embedded")
        assert await first.tell("claim", incident.id) == "token 1"
        await first.kill()
    await fleet.enter("embedded")
    [claim] = await store.claims.take_due("embedded", LEASE, NOW, 9)
    assert (claim.incident_id, claim.token, claim.interruptions) == (incident.id, 2, 1)
    await fleet.leave()
    await store.close()


async def test_an_agent_of_an_earlier_version_on_the_file_is_respected(tmp_path: Path) -> None:
    """It locks the file of this name; two versions at work on one database would not know of each other."""
    store, fleet = await open_shared(f"sqlite:///{tmp_path}/heal.db")
    with (tmp_path / "heal.engine.db.lock").open("ab") as earlier:
        fcntl.flock(earlier, fcntl.LOCK_EX)
        with pytest.raises(ConfigurationError, match="another agent"):
            await fleet.enter("embedded")
    await fleet.enter("embedded")
    await fleet.leave()
    await store.close()
