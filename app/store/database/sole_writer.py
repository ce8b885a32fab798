"""What may be kept in memory of a database that one connection writes.

SQLite's file has one writing connection in a process. What it read stays true until
another connection commits, which SQLite counts in `data_version`, or until a transaction
of its own is undone. The memory lives with the connection and ends with it.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Engine, event

_MEMORY = "kept in memory"
_VERSION = "data version"


def allow_memory(engine: Engine) -> None:
    """Let the one connection of this engine, the only writer of its process, keep what it read."""

    @event.listens_for(engine, "connect")
    def _on_connect(_connection: object, record: Any) -> None:
        record.info[_MEMORY] = {}

    def forget(connection: Connection, *_: object) -> None:
        connection.info[_MEMORY] = {}

    event.listen(engine, "rollback", forget)
    event.listen(engine, "rollback_savepoint", forget)


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
