"""The memory cache of a database with a single writing connection.

SQLite's file has one writing connection in a process. Its reads stay valid until another connection
commits, which SQLite counts in `data_version`, or until one of its own transactions fails, including at
COMMIT. The cache lives and ends with the connection.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, event

_MEMORY = "kept in memory"
_VERSION = "data version"


def allow_memory(engine: Engine) -> None:
    """Let the one connection of this engine, the only writer of its process, cache its reads."""

    @event.listens_for(engine, "connect")
    def _on_connect(_connection: object, record: Any) -> None:
        record.info[_MEMORY] = {}

    @event.listens_for(engine, "rollback_savepoint")
    def _on_rollback_savepoint(connection: Connection, *_: object) -> None:
        connection.info[_MEMORY] = {}


@contextmanager
def kept_if_committed(connection: Connection) -> Iterator[None]:
    """Around one whole transaction: drop the cache unless the transaction succeeds.

    SQLAlchemy reports no rollback if COMMIT itself fails, for example on a full disk.
    """
    info = connection.info
    try:
        yield
    except BaseException:
        info[_MEMORY] = {}
        raise


def kept_in_memory(connection: Connection) -> dict[str, Any] | None:
    """The cache, still valid in this transaction; None if caching is not allowed.

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
