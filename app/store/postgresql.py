"""PostgreSQL: a pool of asyncpg connections, for any number of processes.

Units of work run at READ COMMITTED under the locks that they take themselves
(`app.store.locks`); reads run in a read-only snapshot. A unit that lost a race
(deadlock, serialization, a row inserted by a peer a moment before) is rolled
back and run again.
"""

from __future__ import annotations

from typing import TypeVar

import asyncpg  # type: ignore[import-untyped]  # asyncpg ships no type information
from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from app.errors import AgentError, ConfigurationError
from app.store import codec
from app.store.database import Work, sqlstate, translated
from app.store.migrate import upgrade

T = TypeVar("T")

ATTEMPTS = 5
CONNECT_SECONDS = 10.0
COMMAND_SECONDS = 30.0
_LOST_RACES = frozenset({"40001", "40P01", "23505"})


class PostgresDatabase:
    """One PostgreSQL database; opened by `open_postgresql`. Belongs to the event loop it was opened on."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._snapshots = engine.execution_options(
            isolation_level="REPEATABLE READ", postgresql_readonly=True
        )

    async def write(self, work: Work[T]) -> T:
        attempt = 1
        while True:
            try:
                async with self._engine.begin() as connection:
                    return await connection.run_sync(work)
            except (SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
                if attempt == ATTEMPTS or sqlstate(error) not in _LOST_RACES:
                    raise translated(error) from error
            attempt += 1

    async def read(self, work: Work[T]) -> T:
        try:
            async with self._snapshots.connect() as connection, connection.begin():
                return await connection.run_sync(work)
        except (SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            raise translated(error) from error

    async def close(self) -> None:
        await self._engine.dispose()


async def open_postgresql(url: URL) -> PostgresDatabase:
    """Connect, bring the database to the newest schema, and keep a pool.

    The URL means what it means to libpq: `sslmode`, `sslrootcert`, `host=/socket/dir` and the like work.
    """
    dsn = url.set(drivername="postgresql").render_as_string(hide_password=False)

    async def connect() -> object:
        return await asyncpg.connect(
            dsn,
            timeout=CONNECT_SECONDS,
            command_timeout=COMMAND_SECONDS,
            server_settings={"application_name": "self-healing-devops-agent"},
        )

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
    except (SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError, ValueError) as error:
        await engine.dispose()
        raise _opening(url, error) from error
    except BaseException:
        await engine.dispose()
        raise
    return PostgresDatabase(engine)


def _opening(url: URL, error: Exception) -> AgentError:
    """An unreachable server may come back; a wrong address, account or right needs a person."""
    where = url.render_as_string(hide_password=True)
    code = sqlstate(error)
    refused = code is not None and (code[:2] in {"28", "3D"} or code == "42501")
    if refused or isinstance(error, ValueError | asyncpg.InterfaceError):
        detail = error.orig if isinstance(error, DBAPIError) else error
        return ConfigurationError(f"DATABASE_URL: {where} cannot be used: {detail}")
    mapped = translated(error)
    return mapped if isinstance(mapped, AgentError) else ConfigurationError(f"DATABASE_URL: {where}: {error}")
