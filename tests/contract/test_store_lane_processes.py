"""The healthy lane of several processes over one PostgreSQL: nothing lost, doubled or counted twice."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from msgspec import structs
from sqlalchemy import Connection
from sqlalchemy.util import await_only

from app.agent.audit.accounting import AuditQuestion
from app.agent.ids import ServiceKey, SignalId
from app.agent.models import DispositionKind, PostedSamples
from app.agent.ports.store import Store
from app.agent.ports.store.signals import Accepted, HealthySamples
from app.errors import TransientError
from app.store import open_store, store_over
from app.store.database.port import Database, Work
from app.store.signals.narrow import shared
from app.store.signals.narrow.samples import PREFIX
from app.store.signals.postgresql_driver import run
from tests.contract.store_values import NOW
from tests.contract.test_store_lane import RULES, SECOND, _key, _one, _post
from tests.repositories import database_of

pytest_plugins = ["tests.contract.postgres", "tests.contract.stores"]

LATER = NOW + timedelta(days=1)
WHOLE = AuditQuestion(now=LATER, pending_for=timedelta(days=9), deep=True)
SERVICES = 4


@pytest.fixture
async def ours(postgres_url: str) -> AsyncIterator[Store]:
    """The store of a process."""
    opened = await open_store(postgres_url)
    yield opened
    await opened.close()


@pytest.fixture
async def theirs(postgres_url: str) -> AsyncIterator[Store]:
    """The store of another one, over the same database."""
    opened = await open_store(postgres_url)
    yield opened
    await opened.close()


def _asked(url: str, statement: str) -> list[tuple[Any, ...]]:
    """The rows of a statement, run by a client that is none of the agent."""
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(statement.encode()).fetchall()


def _chains(url: str) -> dict[str, list[tuple[int, int]]]:
    """Number and time of each row of a service, from its newest along the chain."""
    rows = {
        row[0]: row[1:] for row in _asked(url, "SELECT number, previous, service, observed_at FROM samples")
    }
    found: dict[str, list[tuple[int, int]]] = {}
    for service, newest in _asked(url, "SELECT service, newest_sample FROM service_levels"):
        chain = found[service] = []
        while newest is not None:
            previous, of, observed_at = rows[newest]
            assert of == service
            chain.append((newest, observed_at))
            newest = previous
    return found


def _sound(url: str) -> int:
    """Every row stands once in the chain of its service, numbers and times falling; how many there are."""
    chains = _chains(url)
    for chain in chains.values():
        assert chain == sorted(chain, reverse=True)
        assert sorted(at for _, at in chain) == sorted({at for _, at in chain})
    [[rows]] = _asked(url, "SELECT count(*) FROM samples")
    assert sum(map(len, chains.values())) == rows
    return int(rows)


async def test_two_processes_that_record_at_once_keep_every_sample_once(
    ours: Store, theirs: Store, postgres_url: str
) -> None:
    """Numbers are unique, each chain is in order, repetitions name the first, and an incident opens once."""
    for number in range(SERVICES):
        await _post(ours, _one(0, number))
    answers: dict[tuple[int, int], Accepted] = {}

    async def send(store: Store, moments: Sequence[int]) -> None:
        for at in moments:
            number = at % SERVICES
            answers[number, at] = await _post(store, _one(at, number))

    # Each sender has its own moments, so that those of one service come out of order.
    senders = [
        (store, range(first, 240, 8)) for first in range(1, 9) for store in ([ours, theirs][first % 2],)
    ]
    await asyncio.gather(*(send(*one) for one in senders))
    assert len({one.signal_id for one in answers.values()}) == len(answers) == 239
    assert {one.disposition.kind for one in answers.values()} == {DispositionKind.IGNORED}
    narrow = sum(one.signal_id.startswith(PREFIX) for one in answers.values())
    assert narrow > 10, "samples took the lane"
    assert _sound(postgres_url) == narrow

    repeated = await asyncio.gather(
        *(_post([theirs, ours][at % 2], _one(300, number, observed=at)) for number, at in answers)
    )
    assert [one.disposition.duplicate_of for one in repeated] == [one.signal_id for one in answers.values()]

    for store in (ours, theirs):
        for number in range(SERVICES):
            shown = await store.signals.samples(_key("s", number), NOW - SECOND)
            times = Counter(round((one.at - NOW) / SECOND) for one in shown)
            wanted = Counter([0, *(at for of, at in answers if of == number)])
            assert set(times) == set(wanted)
    breaches = [_one(at, number, error_rate=0.4) for number in range(SERVICES) for at in range(400, 480, 10)]
    await asyncio.gather(*(_post([ours, theirs][at % 2], one) for at, one in enumerate(breaches)))
    opened = _asked(postgres_url, "SELECT service, count(*) FROM incidents GROUP BY service")
    assert sorted(opened) == [(f"s{number}", 1) for number in range(SERVICES)]
    audit = await ours.accounting.audit(WHOLE)
    assert audit.accepted == audit.accounted == SERVICES + 2 * len(answers) + len(breaches)


async def _waits(url: str, other: asyncio.Task[Accepted]) -> None:
    """Return once the other one waits for a lock, or is through."""
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    while not other.done():
        [[many]] = await asyncio.to_thread(_asked, url, waiting)
        if many:
            return


async def test_sets_of_two_processes_about_one_service_take_turns(
    ours: Store, theirs: Store, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one reads nothing before the first one has committed: its row follows the other's."""
    for at in range(2):
        await _post(ours, _one(at))
    second: list[asyncio.Task[Accepted]] = []
    read = shared.read

    def held(connection: Connection, *given: Any) -> Any:
        found = read(connection, *given)
        if not second:
            second.append(asyncio.get_running_loop().create_task(_post(theirs, _one(3))))
            await_only(_waits(postgres_url, second[0]))
        return found

    monkeypatch.setattr(shared, "read", held)
    first = await _post(ours, _one(2))
    later = await second[0]
    assert first.signal_id.startswith(PREFIX)
    assert later.signal_id > first.signal_id
    assert _sound(postgres_url) == 3
    assert (await _post(theirs, _one(9, observed=2))).disposition.duplicate_of == first.signal_id


def _acknowledged_until_killed(url: str) -> list[str]:
    """What two processes at work at once acknowledged, each killed in the middle of its sets."""
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.contract.sample_acknowledger", url, str(first)],
            stdout=subprocess.PIPE,
        )
        for first in range(2)
    ]
    found: list[str] = []
    for process, many in zip(started, (60, 120), strict=True):
        assert process.stdout is not None
        with process.stdout:
            lines = [process.stdout.readline() for _ in range(many)]
            process.kill()
            lines += process.stdout.readlines()
        process.wait()
        found += [line.decode() for line in lines if line.endswith(b"\n")]
    assert len(found) >= 180
    return found


async def test_what_two_processes_acknowledged_is_on_record_after_both_were_killed(postgres_url: str) -> None:
    """The second one goes on after the first one was killed; every id names its own sample."""
    acknowledged = await asyncio.to_thread(_acknowledged_until_killed, postgres_url)
    store = await open_store(postgres_url)
    ids: Counter[str] = Counter()
    for line in acknowledged:
        moment, signal_id = line.split()
        record = await store.signals.get(SignalId(signal_id))
        assert record is not None
        assert record.signal.observed_at == NOW + timedelta(milliseconds=int(moment))
        ids[signal_id] += 1
    assert set(ids.values()) == {1}
    assert any(one.startswith(PREFIX) for one in ids), "samples took the lane"
    assert _sound(postgres_url) > 0
    audit = await store.accounting.audit(WHOLE)
    assert audit.accepted == audit.accounted >= len(ids)
    await store.close()


@dataclass(slots=True)
class _LosesAnswers:
    """A database whose next unit of work commits, and whose answer to the COMMIT does not arrive."""

    database: Database
    lost: int = 0

    async def write(self, work: Work[Any], *, urgent: bool = False) -> Any:
        result = await self.database.write(work, urgent=urgent)
        if self.lost:
            self.lost -= 1
            raise TransientError("the connection to the database broke")
        return result

    def __getattr__(self, name: str) -> Any:
        return getattr(self.database, name)


async def test_a_commit_whose_answer_is_lost_is_safe_to_repeat(ours: Store, postgres_url: str) -> None:
    """The sender is refused and sends again: the sample is on record once, and the repetition names it."""
    loses = _LosesAnswers(database_of(ours))
    store = store_over(loses, narrow_samples=True)
    for at in range(2):
        await _post(store, _one(at))
    loses.lost = 1
    with pytest.raises(TransientError):
        await _post(store, _one(2))
    again = await _post(store, _one(2))
    assert again.disposition.kind is DispositionKind.DEDUPLICATED
    assert again.disposition.duplicate_of is not None
    assert again.disposition.duplicate_of.startswith(PREFIX)
    assert _sound(postgres_url) == 2
    assert [one.at for one in await store.signals.samples(_key("s", 0), NOW - SECOND)][:3] == [
        NOW + at * SECOND for at in range(3)
    ]
    audit = await store.accounting.audit(WHOLE)
    assert audit.accepted == audit.accounted == 4


@pytest.mark.parametrize("place", ["read", "write"])
async def test_a_set_that_is_cut_off_before_its_commit_runs_again(
    ours: Store, postgres_url: str, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """By an operator or a crash, before it reads or before it writes; each sample is on record once."""
    for at in range(2):
        await _post(ours, _one(at))
    runs = Counter[str]()
    stands = getattr(shared, place)

    def cut(connection: Connection, *given: Any) -> Any:
        runs[place] += 1
        if runs[place] == 1:
            with_driver = connection.connection.driver_connection
            assert with_driver is not None
            _asked(postgres_url, f"SELECT pg_terminate_backend({with_driver.get_server_pid()}, 10000)")
        return stands(connection, *given)

    monkeypatch.setattr(shared, place, cut)
    answer = await ours.signals.accept_samples(_one(2), RULES, dry_run=True)
    assert isinstance(answer, HealthySamples)
    assert runs[place] == 2
    assert _sound(postgres_url) == 2
    audit = await ours.accounting.audit(WHOLE)
    assert audit.accepted == audit.accounted == 3


def _adds_and_fails(connection: Connection) -> None:
    run(connection, "INSERT INTO workers (owner, entered_at) VALUES ($1, now())", "x")
    raise ZeroDivisionError


async def test_a_statement_of_the_driver_belongs_to_the_transaction(ours: Store, postgres_url: str) -> None:
    """Also as its first one: nothing of a unit that fails remains."""
    with pytest.raises(ZeroDivisionError):
        await database_of(ours).write(_adds_and_fails)
    assert _asked(postgres_url, "SELECT owner FROM workers") == []


async def test_a_set_prepared_before_a_migration_runs_again(ours: Store, postgres_url: str) -> None:
    """A peer of a newer version changes a column while this process has the lane's statements prepared."""
    for at in range(3):
        await _post(ours, _one(at))
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("ALTER TABLE service_levels ALTER environment TYPE varchar(200)")
    assert isinstance(await ours.signals.accept_samples(_one(3), RULES, dry_run=True), HealthySamples)
    assert _sound(postgres_url) == 3


def _named(service: str) -> PostedSamples:
    """A healthy sample of a service with any name."""
    posted = _one(9)
    [one] = posted.samples
    key = ServiceKey(environment="prod", service=service)
    return structs.replace(posted, samples=[structs.replace(one, key=key)])


async def test_a_value_that_the_database_refuses_takes_no_other_delivery_with_it(ours: Store) -> None:
    """The driver's own errors mean what they mean everywhere: the set is taken apart."""
    for number in range(2):
        await _post(ours, _one(0, number))
    answered: list[list[Any]] = [[], []]
    for place, posted in enumerate([_named("s\ud800"), _one(10, 1)]):
        ours.signals.post_samples(posted, RULES, dry_run=True, done=answered[place].append)
    async with asyncio.timeout(60):
        while not all(answered):  # noqa: ASYNC110 - answers come by callbacks
            await asyncio.sleep(0)
    [[refused], [taken]] = answered
    assert isinstance(refused, Exception)
    assert not isinstance(refused, TransientError)
    assert isinstance(taken, HealthySamples)
