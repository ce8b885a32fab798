"""PostgreSQL: a pool of asyncpg connections, for any number of processes.

Units of work run at READ COMMITTED under the locks that they take themselves (`app.store.database.locks`);
reads run in a read-only snapshot. A unit that lost a race (deadlock, serialization, a row inserted by a
peer a moment before) is rolled back and run again. So is a unit whose connection was lost before COMMIT was
sent, since it cannot have had an effect: a restart or failover of the database is a pause of a second or
two. Once COMMIT was sent, only the caller can find out whether the unit committed, and nothing is retried
here (promise 2).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import asyncpg  # type: ignore[import-untyped]  # asyncpg ships no type information
from sqlalchemy import URL, event
from sqlalchemy.exc import DBAPIError, DisconnectionError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from app.errors import AgentError, ConfigurationError, TransientError
from app.store.database import codec
from app.store.database.migrate import upgrade
from app.store.database.port import Work, sqlstate, translated
from app.store.database.servers import CONNECT_SECONDS, connecting, shown
from app.store.database.writable import Disk

T = TypeVar("T")

ATTEMPTS = 5
ATTEMPT_SECONDS = 30.0
"""The time limit of an attempt at a unit, regardless of the cause of the wait."""

PATIENCE_SECONDS = 5.0
"""For how long a database that went away is waited for, by each call and since it was last seen."""

PAUSE_SECONDS = 0.2
POOL_SIZE = 8
OVERFLOW = 8
RESERVED = 2
"""Connections that only operators use: the kill switch waits for no delivery."""

_LOST_RACES = frozenset({"40001", "40P01", "23505"})
"""Serialization, deadlock, a peer's row."""
_WENT_AWAY = frozenset({"57P01", "57P02", "57P03", "53300", "25006", "25P03"})
"""Shutdown, crash, starting up, all connections taken, a primary no more, a session that was ended."""
DRIVER_ERRORS = (SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError)
"""The errors of a call: connecting raises the driver's own errors, statements SQLAlchemy's."""


class _Sent:
    """Whether the COMMIT of an attempt was sent."""

    commit = False


class PostgresDatabase:
    """One PostgreSQL database; opened by `open_postgresql`. Belongs to the event loop it was opened on."""

    def __init__(self, engine: AsyncEngine, reserved: AsyncEngine | None = None) -> None:
        """`reserved` holds the connections that only operators use; without it they share `engine`."""
        self._engine = engine
        self._reserved = reserved or engine
        self._running = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False
        self._disk = Disk()
        self._away_since: float | None = None
        """When the database was first found away, on the event loop's clock."""

    async def write(self, work: Work[T], *, urgent: bool = False) -> T:
        engine = self._reserved if urgent else self._engine

        async def attempt(sent: _Sent) -> T:
            async with engine.connect() as connection:
                transaction = await connection.begin()
                result = await connection.run_sync(work)
                sent.commit = True
                await transaction.commit()
                return result

        try:
            result = await self._run(attempt)
        except AgentError as error:
            self._disk.refused(error)
            raise
        self._disk.wrote()
        return result

    async def read(self, work: Work[T], *, urgent: bool = False) -> T:
        engine = self._reserved if urgent else self._engine
        snapshots = engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)

        async def attempt(_: _Sent) -> T:
            async with snapshots.connect() as connection, connection.begin():
                return await connection.run_sync(work)

        return await self._run(attempt)

    async def _run(self, attempt: Callable[[_Sent], Awaitable[T]]) -> T:
        """The attempt's result; run again while that is certainly harmless and may help."""
        races, began = 0, asyncio.get_running_loop().time()
        with self._in_use():
            while True:
                sent = _Sent()
                try:
                    async with asyncio.timeout(ATTEMPT_SECONDS):
                        result = await attempt(sent)
                except DRIVER_ERRORS as error:
                    if _lost_a_race(error) and races + 1 < ATTEMPTS:
                        races += 1
                    elif went_away(error) and not sent.commit and self._worth_waiting(began):
                        await asyncio.sleep(PAUSE_SECONDS)
                    else:
                        raise as_agent_error(error) from error
                else:
                    self._away_since = None
                    return result

    def _worth_waiting(self, began: float) -> bool:
        """Wait only briefly: in a long outage calls fail at once instead of queueing."""
        now = asyncio.get_running_loop().time()
        if self._away_since is None:
            self._away_since = now
        return now < min(began, self._away_since) + PATIENCE_SECONDS

    async def same(self) -> None:
        """The server identifies itself; only its disk is checked."""
        self._disk.require_room()

    async def close(self) -> None:
        self._closed = True
        await self._idle.wait()
        await self._engine.dispose()
        await self._reserved.dispose()

    @contextmanager
    def _in_use(self) -> Iterator[None]:
        if self._closed:
            raise TransientError("the store is closed")
        self._running += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._running -= 1
            if self._running == 0:
                self._idle.set()


async def open_postgresql(url: URL) -> PostgresDatabase:
    """Connect, bring the database to the newest schema, and keep a pool."""
    try:
        await _migrate(url)
    except DRIVER_ERRORS as error:
        raise _opening(url, error) from error
    return PostgresDatabase(
        _pool(url, size=POOL_SIZE, overflow=OVERFLOW), _pool(url, size=RESERVED, overflow=0)
    )


def _pool(url: URL, *, size: int, overflow: int) -> AsyncEngine:
    engine = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=connecting(url),
        pool_size=size,
        max_overflow=overflow,
        pool_timeout=CONNECT_SECONDS,
        json_serializer=codec.dumps,
        json_deserializer=codec.loads,
    )
    event.listen(engine.sync_engine, "checkout", _replace_if_closed)
    return engine


def _replace_if_closed(adapter: Any, *_: object) -> None:
    """Have the pool connect again instead of lending a connection that the server has closed.

    Without asking the server, which would be three round trips for each unit of work: a
    unit whose connection breaks before COMMIT is run again in any case.
    """
    if adapter.driver_connection.is_closed():
        raise DisconnectionError("closed by the server")


async def _migrate(url: URL) -> None:
    """Migrate on a separate connection without a statement timeout."""
    engine = create_async_engine(
        "postgresql+asyncpg://", async_creator=connecting(url, limits={}), poolclass=NullPool
    )
    try:
        async with engine.begin() as connection:
            await connection.run_sync(upgrade)
    finally:
        await engine.dispose()


def _lost_a_race(error: Exception) -> bool:
    """Whether the server undid the attempt for what a peer did; a migration under prepared statements too."""
    cause = error.orig.__cause__ if isinstance(error, DBAPIError) and error.orig is not None else error
    outdated = isinstance(cause, asyncpg.InvalidCachedStatementError)
    return outdated or sqlstate(error) in _LOST_RACES


def went_away(error: Exception) -> bool:
    """Whether the connection was lost or is no longer served, so that a new one may help.

    A time-out is not included: a caller that waited that long does not retry.
    """
    code = sqlstate(error)
    if code is not None:
        return code in _WENT_AWAY or code.startswith("08")
    if isinstance(error, DBAPIError):
        return error.connection_invalidated
    return isinstance(error, asyncpg.InterfaceError | OSError) and not isinstance(error, TimeoutError)


def as_agent_error(error: Exception) -> Exception:
    """As everywhere, and a connection closed by the driver is a transient error."""
    if isinstance(error, asyncpg.InterfaceError):
        return TransientError(f"the connection to the database broke: {error}")
    return translated(error)


def _opening(url: URL, error: Exception) -> Exception:
    """An unreachable server may come back; a missing database, or a refused account, needs a person."""
    code = sqlstate(error)
    if code is not None and (code[:2] in {"28", "3D"} or code == "42501"):
        detail = error.orig if isinstance(error, DBAPIError) else error
        return ConfigurationError(f"DATABASE_URL: {shown(url)} cannot be used: {detail}")
    return as_agent_error(error)
