"""PostgreSQL: a pool of asyncpg connections, for any number of processes.

Units of work run at READ COMMITTED under the locks that they take themselves
(`app.store.locks`); reads run in a read-only snapshot. A unit that lost a race
(deadlock, serialization, a row inserted by a peer a moment before) is rolled
back and run again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import asyncpg  # type: ignore[import-untyped]  # asyncpg ships no type information
from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from app.errors import ConfigurationError, TransientError
from app.store import codec
from app.store.database import Work, sqlstate, translated
from app.store.migrate import upgrade

T = TypeVar("T")

ATTEMPTS = 5
CONNECT_SECONDS = 10.0
COMMAND_SECONDS = 30.0
_LOST_RACES = frozenset({"40001", "40P01", "23505"})
_DRIVER_ERRORS = (SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError)
"""What a call can fail with: connecting raises the driver's own errors, statements SQLAlchemy's."""


class PostgresDatabase:
    """One PostgreSQL database; opened by `open_postgresql`. Belongs to the event loop it was opened on."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._snapshots = engine.execution_options(
            isolation_level="REPEATABLE READ", postgresql_readonly=True
        )
        self._running = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False

    async def write(self, work: Work[T]) -> T:
        attempt = 1
        with self._in_use():
            while True:
                try:
                    async with self._engine.begin() as connection:
                        return await connection.run_sync(work)
                except _DRIVER_ERRORS as error:
                    if attempt == ATTEMPTS or sqlstate(error) not in _LOST_RACES:
                        raise _told(error) from error
                attempt += 1

    async def read(self, work: Work[T]) -> T:
        with self._in_use():
            try:
                async with self._snapshots.connect() as connection, connection.begin():
                    return await connection.run_sync(work)
            except _DRIVER_ERRORS as error:
                raise _told(error) from error

    async def close(self) -> None:
        self._closed = True
        await self._idle.wait()
        await self._engine.dispose()

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
    connect = connecting(url)
    engine = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=connect,
        pool_size=8,
        max_overflow=8,
        pool_timeout=CONNECT_SECONDS,
        pool_pre_ping=True,
        json_serializer=codec.dumps,
        json_deserializer=codec.loads,
    )
    try:
        async with engine.begin() as connection:
            await connection.run_sync(upgrade)
    except _DRIVER_ERRORS as error:
        await engine.dispose()
        raise _opening(url, error) from error
    except BaseException:
        await engine.dispose()
        raise
    return PostgresDatabase(engine)


def connecting(url: URL) -> Callable[[], Awaitable[Any]]:
    """What makes one connection of the driver's own.

    The URL means what it means to libpq: `sslmode`, `sslrootcert`,
    `host=/socket/dir`, several hosts with `target_session_attrs` and the like
    work. The server is asked to notice within some ten seconds when this side is
    cut off, and this side breaks a call that takes too long.
    """
    dsn = url.set(drivername="postgresql").render_as_string(hide_password=False)

    async def connect() -> object:
        try:
            return await asyncpg.connect(
                dsn,
                timeout=CONNECT_SECONDS,
                command_timeout=COMMAND_SECONDS,
                server_settings={
                    "application_name": "self-healing-devops-agent",
                    "tcp_keepalives_idle": "5",
                    "tcp_keepalives_interval": "2",
                    "tcp_keepalives_count": "3",
                },
            )
        except ValueError as error:  # the address itself makes no sense to the driver
            raise ConfigurationError(f"DATABASE_URL: {_shown(url)} is not understood: {error}") from None

    return connect


def _opening(url: URL, error: Exception) -> Exception:
    """An unreachable server may come back; a missing database, or a refused account, needs a person."""
    code = sqlstate(error)
    if code is not None and (code[:2] in {"28", "3D"} or code == "42501"):
        detail = error.orig if isinstance(error, DBAPIError) else error
        return ConfigurationError(f"DATABASE_URL: {_shown(url)} cannot be used: {detail}")
    return _told(error)


def _told(error: Exception) -> Exception:
    """As everywhere, and a connection that the driver itself gave up is a passing trouble."""
    if isinstance(error, asyncpg.InterfaceError):
        return TransientError(f"the connection to the database broke: {error}")
    return translated(error)


def _shown(url: URL) -> str:
    return url.render_as_string(hide_password=True)
