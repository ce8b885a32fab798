"""PostgreSQL that restarts, crashes, fails over, hangs or has no room: the store rides it out.

Over a server of the test's own, with fsync on. Whatever happens to the database, a
call succeeds or raises `TransientError`, nothing acknowledged is lost (promise 9),
and the same open store works again afterwards.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, text
from sqlalchemy.engine import make_url

from app.agent.guardrails.limits import Budget
from app.agent.ids import ServiceKey
from app.agent.models import IncidentState
from app.agent.ports.store import Store
from app.errors import ClaimLost, ConfigurationError, TransientError
from app.store import open_shared, open_store
from app.store.database import locks, postgresql, servers
from app.store.database.postgresql import PostgresDatabase, open_postgresql
from app.store.fleet import PostgresFleet
from testbed.freezing import freeze, thaw
from testbed.postgres import SUPERUSER, PostgresServer, postgres_server
from testbed.supervisor import Supervisor
from tests.contract.store_values import Deciding, opened, signal

pytestmark = pytest.mark.real

LEASE = timedelta(seconds=30)
DEADLINE_SECONDS = 300.0
CALLERS = 6


@pytest.fixture(scope="module")
def supervisor() -> Iterator[Supervisor]:
    started = Supervisor()
    yield started
    started.close()


@pytest.fixture(scope="module")
def shared_server(supervisor: Supervisor) -> Iterator[PostgresServer]:
    with postgres_server(supervisor) as server:
        yield server


@pytest.fixture
def server(shared_server: PostgresServer) -> PostgresServer:
    """Up, whatever the test before did to it."""
    if shared_server.pid is None:
        shared_server.start()
    return shared_server


@pytest.fixture
def url(server: PostgresServer) -> Iterator[str]:
    """A database of the test's own."""
    database = server.create()
    yield server.url(database)
    server.drop(database)


@pytest.fixture
async def store(url: str) -> AsyncIterator[Store]:
    opened_store = await open_store(url)
    yield opened_store
    await opened_store.close()


@pytest.fixture
async def database(url: str) -> AsyncIterator[PostgresDatabase]:
    found = await open_postgresql(make_url(url))
    yield found
    await found.close()


async def until(what: str, holds: Callable[[], Awaitable[bool]]) -> None:
    """Wait for a condition; what it cannot be asked for now does not hold."""
    deadline = asyncio.get_running_loop().time() + DEADLINE_SECONDS
    while True:
        try:
            if await holds():
                return
        except TransientError:
            pass
        assert asyncio.get_running_loop().time() < deadline, f"timed out waiting for {what}"
        await asyncio.sleep(0.05)


# ------------------------------------------------------------ under load


@dataclass
class Load:
    """Callers that read, accept and take without end, and the record of their answers."""

    store: Store
    accepted: list[str] = field(default_factory=list)
    refused: list[TransientError] = field(default_factory=list)
    done: int = 0
    """Calls that succeeded."""

    async def accept(self, caller: int) -> None:
        one = signal(key=ServiceKey(environment="prod", service=f"svc-{caller}"), at=datetime.now(UTC))
        await self.store.signals.accept([one], Deciding(), dry_run=True)
        self.accepted.append(one.id)

    async def take(self, caller: int) -> None:
        for claim in await self.store.claims.take_due(f"worker-{caller}", LEASE, datetime.now(UTC), 2):
            await self.store.claims.release(claim, datetime.now(UTC))

    async def look(self, _: int) -> None:
        await self.store.incidents.all_open()

    async def keep(self, call: Callable[[int], Awaitable[None]], caller: int) -> None:
        while True:
            try:
                await call(caller)
            except TransientError as error:
                self.refused.append(error)
                await asyncio.sleep(0.02)
            else:
                self.done += 1

    async def goes_on(self, more: int = 60) -> None:
        """Return when so many more calls succeeded; a caller that ended has met an error it must not."""
        goal = self.done + more

        async def reached() -> bool:
            return self.done >= goal

        await until("calls to succeed", reached)


@asynccontextmanager
async def under_load(store: Store) -> AsyncIterator[Load]:
    load = Load(store)
    calls = (load.accept, load.take, load.look)
    tasks = [asyncio.create_task(load.keep(call, caller)) for caller in range(CALLERS) for call in calls]
    try:
        await load.goes_on()
        yield load
        await load.goes_on()
        # All of them, not only some: each kind of call works again, for each caller.
        for caller in range(CALLERS):
            for call in calls:
                await call(caller)
        ended = [task for task in tasks if task.done()]
        assert not ended, ended[0].exception()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for identifier in load.accepted:
        assert await store.signals.get(identifier) is not None, f"{identifier} was acknowledged and is lost"  # type: ignore[arg-type]  # ids are strings at run time


@pytest.mark.parametrize("how", ["restart", "crash"])
async def test_the_database_goes_down_and_comes_back_under_load(
    server: PostgresServer, store: Store, how: str
) -> None:
    """Twice, with recovery from the log after a crash: transient errors at worst, and nothing lost."""
    async with under_load(store) as load:
        for _ in range(2):
            await asyncio.to_thread(getattr(server, how))
            await load.goes_on()


async def test_a_short_restart_is_not_even_noticed(server: PostgresServer, store: Store) -> None:
    """Reads and units that had not committed wait for the database and run again."""
    await opened(store)
    started = asyncio.Event()

    async def reads() -> int:
        loop = asyncio.get_running_loop()
        end, count = loop.time() + 1.0, 0
        while loop.time() < end or not restart.done():
            assert len(await store.incidents.all_open()) == 1
            count += 1
            started.set()
        return count

    async def restarts() -> None:
        await started.wait()
        await asyncio.to_thread(server.restart)

    restart = asyncio.create_task(restarts())
    assert await reads()
    await restart


async def test_a_long_outage_fails_at_once(
    server: PostgresServer, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once it has been away for longer than any caller waits, callers do not pile up."""
    monkeypatch.setattr(postgresql, "PATIENCE_SECONDS", 0.5)
    server.stop()
    with pytest.raises(TransientError):
        await store.ping()
    monkeypatch.setattr(postgresql, "PAUSE_SECONDS", 10 * DEADLINE_SECONDS)
    async with asyncio.timeout(DEADLINE_SECONDS):  # not one of them waits
        for _ in range(20):
            with pytest.raises(TransientError):
                await store.ping()
    monkeypatch.undo()
    server.start()
    await store.ping()


# ------------------------------------------------------------ what may run again


def _cut(connection: Connection) -> None:
    """End the session that the unit runs in, from outside, as an operator or a crash does."""
    pid = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
    address = connection.execute(
        text("SELECT current_setting('unix_socket_directories'), current_setting('port'), current_database()")
    ).one()
    with psycopg.connect(
        host=address[0], port=address[1], dbname=address[2], user=SUPERUSER, autocommit=True
    ) as other:
        other.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])


async def test_a_unit_cut_off_before_its_commit_runs_again_and_happens_once(
    database: PostgresDatabase,
) -> None:
    """Nothing of the first run can have happened: COMMIT was never sent."""
    runs = 0

    def work(connection: Connection) -> int:
        nonlocal runs
        runs += 1
        connection.execute(text("INSERT INTO counted VALUES (1)"))
        if runs == 1:
            _cut(connection)
            connection.execute(text("SELECT 1"))
        return runs

    await database.write(lambda c: c.execute(text("CREATE TABLE counted (number int)")))
    assert await database.write(work) == 2
    assert await database.read(lambda c: c.execute(text("SELECT count(*) FROM counted")).scalar_one()) == 1


async def test_a_read_that_was_cut_off_runs_again(database: PostgresDatabase) -> None:
    """Repeating it changes nothing."""
    runs = 0

    def work(connection: Connection) -> int:
        nonlocal runs
        runs += 1
        if runs == 1:
            _cut(connection)
        return int(connection.execute(text("SELECT 7")).scalar_one())

    assert await database.read(work) == 7
    assert runs == 2


@pytest.mark.parametrize("committed", [False, True])
async def test_a_unit_cut_off_during_its_commit_is_left_to_the_caller(
    server: PostgresServer, database: PostgresDatabase, monkeypatch: pytest.MonkeyPatch, committed: bool
) -> None:
    """The caller cannot know whether it happened, so it never runs twice (promise 2)."""
    runs = 0

    def work(connection: Connection) -> None:
        nonlocal runs
        runs += 1
        connection.execute(text("INSERT INTO counted VALUES (1)"))

    await database.write(lambda c: c.execute(text("CREATE TABLE counted (number int)")))
    if committed:
        # Durable on this side, and no standby ever confirms: the answer to COMMIT does not come.
        monkeypatch.setattr(postgresql, "ATTEMPT_SECONDS", 1.0)
        server.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        server.execute("SELECT pg_reload_conf()")
        await _commits_wait(server)
    else:
        await database.write(_die_at_commit)
    try:
        with pytest.raises(TransientError):
            await database.write(work)
    finally:
        server.execute("ALTER SYSTEM RESET synchronous_standby_names")
        server.execute("SELECT pg_reload_conf()")
    assert runs == 1
    stored = await database.read(lambda c: c.execute(text("SELECT count(*) FROM counted")).scalar_one())
    assert stored == (1 if committed else 0)


async def _commits_wait(server: PostgresServer) -> None:
    """Return once a commit does not come back."""
    writing = asyncio.create_task(_write_until_it_hangs(server))

    async def one_waits() -> bool:
        async with await psycopg.AsyncConnection.connect(server.url(), autocommit=True) as other:
            row = await (
                await other.execute("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
            ).fetchone()
            return row is not None and row[0] > 0

    try:
        await until("a commit to wait for a standby", one_waits)
    finally:
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)


async def _write_until_it_hangs(server: PostgresServer) -> None:
    async with await psycopg.AsyncConnection.connect(server.url(), autocommit=True) as other:
        while True:
            await other.execute("SELECT pg_current_xact_id()")


def _die_at_commit(connection: Connection) -> None:
    connection.execute(
        text(
            "CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()), pg_sleep(5); RETURN NULL; END $$"
        )
    )
    connection.execute(
        text(
            "CREATE CONSTRAINT TRIGGER dies AFTER INSERT ON counted DEFERRABLE INITIALLY DEFERRED"
            " FOR EACH ROW EXECUTE FUNCTION die()"
        )
    )


async def test_a_statement_prepared_before_a_migration_runs_again(database: PostgresDatabase) -> None:
    """A peer of a newer version changes a column while this process has its statements prepared."""
    await database.write(lambda c: c.execute(text("CREATE TABLE grows (number int)")))
    await database.write(lambda c: c.execute(text("INSERT INTO grows VALUES (1)")))

    def read(connection: Connection) -> Any:
        return connection.execute(text("SELECT * FROM grows")).one()[0]

    assert [await database.read(read) for _ in range(3)] == [1, 1, 1]
    await database.write(lambda c: c.execute(text("ALTER TABLE grows ALTER number TYPE text")))
    assert await database.read(read) == "1"


# ------------------------------------------------------------ hanging


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that gives up does so soon."""
    monkeypatch.setattr(servers, "COMMAND_SECONDS", 0.5)
    monkeypatch.setattr(servers, "CONNECT_SECONDS", 1.0)
    monkeypatch.setattr(servers, "_SHORTEST_CONNECT_SECONDS", 1.0)
    monkeypatch.setattr(postgresql, "CONNECT_SECONDS", 1.0)
    monkeypatch.setattr(postgresql, "ATTEMPT_SECONDS", 1.5)
    monkeypatch.setattr(postgresql, "PATIENCE_SECONDS", 0.5)


async def test_a_server_that_hangs_exhausts_nothing_for_ever(
    impatient: None, server: PostgresServer, store: Store
) -> None:
    """More calls than connections hang, each ends in a `TransientError`, and later all work again."""
    calls = 3 * (postgresql.POOL_SIZE + postgresql.OVERFLOW)
    await asyncio.gather(*(store.incidents.all_open() for _ in range(calls)))
    server.freeze()
    try:
        for _ in range(2):
            answers = await asyncio.gather(
                *(store.ping() if n % 2 else opened(store) for n in range(calls)), return_exceptions=True
            )
            assert {type(answer) for answer in answers} == {TransientError}
    finally:
        server.thaw()

    async def all_answer() -> bool:
        await asyncio.gather(*(store.ping() for _ in range(calls)))
        return True

    await until("every connection to work again", all_answer)


async def test_one_session_that_hangs_affects_no_other(
    impatient: None, server: PostgresServer, database: PostgresDatabase
) -> None:
    """Its call ends in a `TransientError`, its connection is thrown away, and the others go on."""

    def hang(connection: Connection) -> None:
        pid = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
        stopped.append(pid)
        freeze(pid)
        connection.execute(text("SELECT 1"))

    stopped: list[int] = []
    try:
        with pytest.raises(TransientError):
            await database.write(hang)
        for _ in range(3):
            found = await asyncio.gather(
                *(database.read(lambda c: c.execute(text("SELECT 1")).scalar_one()) for _ in range(40))
            )
            assert set(found) == {1}
    finally:
        thaw(*stopped)
    assert len(stopped) == 1


# ------------------------------------------------------------ limits


@pytest.mark.parametrize(
    ("limit", "statement"),
    [
        ("statement_timeout", "SELECT pg_sleep(30)"),
        ("lock_timeout", "LOCK TABLE incidents"),
        ("lock_timeout", "SELECT pg_advisory_xact_lock(1)"),
    ],
)
async def test_the_server_ends_what_takes_too_long(
    server: PostgresServer, url: str, monkeypatch: pytest.MonkeyPatch, limit: str, statement: str
) -> None:
    """A slow statement or a lock that another session holds is a transient error, not a defect."""
    monkeypatch.setitem(servers.LIMITS, limit, "200")
    database = await open_postgresql(make_url(url))
    try:
        with psycopg.connect(url) as sitter:
            sitter.execute("LOCK TABLE incidents")
            sitter.execute("SELECT pg_advisory_xact_lock(1)")
            with pytest.raises(TransientError):
                await database.write(lambda connection: connection.execute(text(statement)))
    finally:
        await database.close()


async def test_a_transaction_that_was_forgotten_frees_its_locks(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that was frozen in the middle of a unit holds up its peers only for so long."""
    store = await open_store(url)
    await opened(store)
    monkeypatch.setitem(servers.LIMITS, "idle_in_transaction_session_timeout", "300")
    frozen = await servers.connecting(make_url(url))()
    try:
        await frozen.execute("BEGIN")
        await frozen.execute("SELECT * FROM incidents FOR UPDATE")
        [incident] = await store.incidents.all_open()
        assert await store.claims.take(incident.id, "peer", LEASE, datetime.now(UTC)) is not None
    finally:
        frozen.terminate()
        await store.close()


async def test_migrations_may_take_their_time(
    server: PostgresServer, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limits of everyday units do not hold for a start that waits for a peer's migration."""
    monkeypatch.setitem(servers.LIMITS, "lock_timeout", "50")
    monkeypatch.setitem(servers.LIMITS, "statement_timeout", "50")
    monkeypatch.setattr(servers, "COMMAND_SECONDS", 0.05)
    await (await open_store(url)).close()
    async with await psycopg.AsyncConnection.connect(url) as peer:
        await peer.execute("LOCK TABLE alembic_version")
        opening = asyncio.create_task(open_store(url))

        async def has_waited() -> bool:
            waiting = (
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                " AND clock_timestamp() - query_start > interval '200 ms'"
            )
            async with await psycopg.AsyncConnection.connect(url, autocommit=True) as other:
                row = await (await other.execute(waiting)).fetchone()
            return row is not None and row[0] > 0

        await until("the start to have waited longer than every limit", has_waited)
        await peer.rollback()
        await (await opening).close()


async def test_no_connection_left_is_transient_and_says_when_to_ask_again(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program's storm takes every connection; this process keeps its own and continues."""
    monkeypatch.setattr(postgresql, "PATIENCE_SECONDS", 0.5)
    settings = {"max_connections": "12", "superuser_reserved_connections": "0"}
    with postgres_server(supervisor, settings=settings) as server, ExitStack() as storm:
        url = server.url(server.create())
        store, newcomer = await open_store(url), await open_store(url)
        await store.ping()  # keeps one connection; the newcomer has none yet
        _take_every_connection(url, storm)
        with pytest.raises(TransientError) as caught:
            await newcomer.ping()
        assert caught.value.retry_after is not None
        answers = await asyncio.gather(*(store.ping() for _ in range(40)), return_exceptions=True)
        assert set(map(type, answers)) <= {type(None), TransientError}
        assert None in answers
        storm.close()
        await until("the newcomer to get in", lambda: _answers(newcomer))
        await store.close()
        await newcomer.close()


def _take_every_connection(url: str, storm: ExitStack) -> None:
    try:
        while True:
            storm.enter_context(psycopg.connect(url))
    except psycopg.OperationalError as error:
        assert "too many clients" in str(error)  # noqa: PT017 - how the loop is meant to end


async def _answers(store: Store) -> bool:
    await store.ping()
    return True


# ------------------------------------------------------------ several hosts


@pytest.mark.parametrize("form", ["hosts", "query", "chosen"])
async def test_a_standby_takes_over_under_load(supervisor: Supervisor, form: str) -> None:
    """The primary dies, the standby is promoted: the same store goes on, and nothing is lost."""
    with postgres_server(supervisor) as first, postgres_server_to_be(supervisor) as second:
        name = first.create()
        second.follow(first)
        first.execute("ALTER SYSTEM SET synchronous_standby_names = 'standby'")
        first.execute("SELECT pg_reload_conf()")
        # The standby is named first: a client that takes any host that answers fails at once.
        both = {
            "hosts": f"postgresql://{SUPERUSER}@127.0.0.1:{second.port},127.0.0.1:{first.port}/{name}",
            "query": f"postgresql://{SUPERUSER}@/{name}?host=127.0.0.1,127.0.0.1"
            f"&port={second.port},{first.port}&target_session_attrs=read-write",
            "chosen": f"postgresql://{SUPERUSER}@/{name}?host={second.directory},{first.directory}"
            f"&port={second.port},{first.port}&target_session_attrs=primary",
        }
        store, fleet = await open_shared(both[form])
        await fleet.enter("the one")
        async with under_load(store) as load:
            await asyncio.to_thread(first.kill)
            await asyncio.to_thread(second.promote)
            await load.goes_on()
        await until("presence on the new primary", lambda: _stays(fleet))
        await fleet.leave()
        await store.close()


async def _stays(fleet: Any) -> bool:
    await fleet.reap()
    return True


@contextmanager
def postgres_server_to_be(supervisor: Supervisor) -> Iterator[PostgresServer]:
    """A server that is not started yet, stopped and gone afterwards."""
    with TemporaryDirectory(prefix="heal-pg-") as name:
        server = PostgresServer(supervisor, Path(name))
        try:
            yield server
        finally:
            server.stop()


async def test_a_host_that_has_gone_silent_hides_no_other(
    server: PostgresServer, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that takes connections and answers nothing costs its own time only, and only once."""
    monkeypatch.setattr(servers, "CONNECT_SECONDS", 0.6)
    monkeypatch.setattr(servers, "_SHORTEST_CONNECT_SECONDS", 0.3)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        database = make_url(url).database
        hosts = f"127.0.0.1:{silent.getsockname()[1]},127.0.0.1:{server.port}"
        store = await open_store(f"postgresql://{SUPERUSER}@{hosts}/{database}")
        await opened(store)
        assert len(await store.incidents.all_open()) == 1
        await store.close()


@pytest.mark.parametrize(
    "wrong",
    [
        "postgresql://u:secret@h1:1,h2:x/db",
        "postgresql://u:secret@h1,,h2/db",
        "postgresql://u:secret@/db?host=h1,h2,h3&port=1,2",
        "postgresql://u:secret@/db?host=h1,h2&port=one",
        "postgresql://u:secret@h1,h2/db?target_session_attrs=best",
    ],
)
async def test_hosts_that_make_no_sense_are_a_configuration_error(wrong: str) -> None:
    """Said at the start, without the password."""
    with pytest.raises(ConfigurationError, match="DATABASE_URL") as caught:
        await open_store(wrong)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("postgresql://u:p%40,s@h1:1,h2/db?sslmode=disable", [("h1", 1), ("h2", 5432)]),
        ("postgres://[::1]:1,h2:2/db", [("::1", 1), ("h2", 2)]),
        ("postgresql://u@/db?host=h1,h2&port=7", [("h1", 7), ("h2", 7)]),
        ("postgresql://u@/db?host=/var/run&port=7", [("/var/run", 7)]),
        ("postgresql://h:7/db", [("h", 7)]),
        ("postgresql:///db", [(None, None)]),
    ],
)
def test_a_url_names_its_servers_as_for_libpq(
    written: str, meant: list[tuple[str | None, int | None]]
) -> None:
    """Both ways of writing several hosts."""
    found = servers.servers(make_url(servers.one_host(written)))
    assert [(server.host, server.port) for server in found] == meant


# ------------------------------------------------------------ who is alive


async def test_no_peer_is_declared_dead_because_the_database_restarted(
    server: PostgresServer, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one back gives the others time to come back; one that does not is declared dead."""
    (store, mine), (other_store, other) = [await open_shared(url) for _ in range(2)]
    await mine.enter("mine")
    await other.enter("other")
    incident = await opened(other_store)
    claim = await other_store.claims.take(incident.id, "other", LEASE, datetime.now(UTC))
    assert claim is not None
    await asyncio.to_thread(server.restart)
    assert await mine.reap() == ()  # back first, while nothing stands for the other
    assert await other.reap() == ()
    await other_store.incidents.save(claim, incident, [])  # it still holds what it held
    assert isinstance(mine, PostgresFleet)
    mine._lenient_until = 0.0
    assert await mine.reap() == ()
    alive = int(locks.Space.ALIVE)
    server.execute(f"SELECT pg_terminate_backend(pid) FROM pg_locks WHERE classid = {alive}")  # noqa: S608 - a number
    await until("my own presence", lambda: _stays(mine))
    mine._lenient_until = 0.0
    assert await mine.reap() == ("other",)
    await _late_writes_are_refused(store, other_store, claim)
    assert await other.reap() == ()  # the ghost comes back as somebody new, and alive
    mine._lenient_until = 0.0
    assert await mine.reap() == ()
    for fleet, its in ((mine, store), (other, other_store)):
        await fleet.leave()
        await its.close()


async def _late_writes_are_refused(store: Store, late: Store, claim: Any) -> None:
    """Promise 3: from the take-over on the database takes nothing from the one that was cut off."""
    [taken] = await store.claims.take_due("mine", LEASE, datetime.now(UTC), 5)
    assert taken.token > claim.token
    [incident] = await late.incidents.all_open()
    for write in (
        late.incidents.save(claim, incident, []),
        late.intents.begin(claim, "int_late", None, Budget(per_incident=5), datetime.now(UTC)),  # type: ignore[arg-type]  # ids are strings
        late.incidents.save(claim, incident, []),
    ):
        with pytest.raises(ClaimLost):
            await write
    await late.claims.release(claim, datetime.now(UTC) + timedelta(days=1))
    saved = await store.incidents.save(taken, incident, [])
    assert saved.state is IncidentState.OPEN
