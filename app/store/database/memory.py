"""SQLite in memory, on the caller's thread: a store for simulations that nothing needs to survive.

It runs the same statements as the file of the product without its threads, its
group commit and its durability; a benchmark opens hundreds of them. Each begins as
a copy of one migrated database.
"""

from __future__ import annotations

import sqlite3
from functools import cache
from typing import Any, TypeVar, cast

from sqlalchemy import Connection, create_engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import StatementError
from sqlalchemy.pool import StaticPool

from app.store.database import codec
from app.store.database.migrate import upgrade
from app.store.database.port import Work, translated

T = TypeVar("T")


class MemoryDatabase:
    """A `Database` of one event loop; closing it discards the data."""

    def __init__(self) -> None:
        copy = sqlite3.connect(":memory:", check_same_thread=False)
        _migrated().backup(copy)
        self._engine = _engine(copy)
        self._connection = self._engine.connect()

    async def write(self, work: Work[T], *, urgent: bool = False) -> T:  # noqa: ARG002 - no one waits here
        return self._run(work)

    async def read(self, work: Work[T], *, urgent: bool = False) -> T:  # noqa: ARG002 - no one waits here
        return self._run(work)

    async def same(self) -> None:
        """It cannot be replaced."""

    async def close(self) -> None:
        self._connection.close()
        self._engine.dispose()

    def _run(self, work: Work[T]) -> T:
        try:
            with self._connection.begin():
                return work(self._connection)
        except (StatementError, sqlite3.Error) as error:
            raise translated(error) from error


def _engine(driver: sqlite3.Connection) -> Any:
    engine = create_engine(
        "sqlite://",
        creator=lambda: driver,
        poolclass=StaticPool,
        json_serializer=codec.dumps,
        json_deserializer=codec.loads,
    )

    @event.listens_for(engine, "connect")
    def _on_connect(connection: DBAPIConnection, _record: object) -> None:
        # The driver itself opens transactions too late, and never for a read.
        cast("Any", connection).isolation_level = None
        cursor = connection.cursor()
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _on_begin(connection: Connection) -> None:
        # By the driver: through SQLAlchemy it costs as much as many statements of a simulation.
        cast("Any", connection.connection.driver_connection).execute("BEGIN")

    return engine


@cache
def _migrated() -> sqlite3.Connection:
    """One database with the newest schema, for copies."""
    driver = sqlite3.connect(":memory:", check_same_thread=False)
    engine = _engine(driver)
    with engine.connect() as connection, connection.begin():
        upgrade(connection)
    return driver
