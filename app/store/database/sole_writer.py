"""What may be kept in memory of a database that one connection writes.

SQLite's file has one writing connection in a process. What it read stays true until
another connection commits, which SQLite counts in `data_version`, or until a transaction
of its own fails, its COMMIT included. The memory lives with the connection and ends with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, event

_MEMORY = "kept in memory"
_VERSION = "data version"


def allow_memory(engine: Engine) -> None:
    """Let the one connection of this engine, the only writer of its process, keep what it read."""

    @event.listens_for(engine, "connect")
    def _on_connect(_connection: object, record: Any) -> None:
        record.info[_MEMORY] = {}

    @event.listens_for(engine, "rollback_savepoint")
    def _on_rollback_savepoint(connection: Connection, *_: object) -> None:
        connection.info[_MEMORY] = {}


@contextmanager
def kept_if_committed(connection: Connection) -> Iterator[None]:
    """Around one whole transaction: drop what is kept unless it ends well.

    SQLAlchemy reports no rollback when COMMIT itself fails, as it does on a full disk.
    """
    info = connection.info
    try:
        yield
    except BaseException:
        info[_MEMORY] = {}
        raise


def kept_in_memory(connection: Connection) -> dict[str, Any] | None:
    """What is kept, and still true in this transaction; None where nothing may be kept.

    For transactions that have begun to write: no other connection commits before they end.
    """
    memory: dict[str, Any] | None = connection.info.get(_MEMORY)
    if memory is None:
        return None
    driver: Any = connection.connection.driver_connection
    [version] = driver.execute("PRAGMA data_version").fetchone()
    if connection.info.get(_VERSION) != version:
        connection.info[_VERSION] = version
        memory.clear()
    return memory
