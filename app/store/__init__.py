"""The store: signals, incidents and history over SQLite or PostgreSQL.

The composition root calls `open_store` and hands the result on as the `Store`
port. Every sentence of that port is held by the contract suite
`tests/contract/test_store_*.py`, which runs over both databases.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from app.agent.ports.store import Store
from app.agent.ports.workers import Fleet
from app.errors import ConfigurationError
from app.store.database.memory import MemoryDatabase
from app.store.database.postgresql import open_postgresql
from app.store.database.servers import connecting, one_host
from app.store.database.sqlite import open_sqlite
from app.store.fleet import Alone, EmbeddedFleet, PostgresFleet
from app.store.sql_store import SqlStore


async def open_store(database_url: str) -> Store:
    """Open the database at `sqlite:///path` or `postgresql://...` and bring it to the newest schema.

    Raises `ConfigurationError`, which never repeats a password, when the URL
    or the database cannot be used, and `TransientError` when a server does not answer.
    """
    store, _ = await open_shared(database_url)
    return store


async def open_shared(database_url: str) -> tuple[Store, Fleet]:
    """As `open_store`, with the fleet of processes that share it."""
    url = _understood(database_url)
    match url.drivername:
        case "sqlite":
            file = await open_sqlite(url)
            return SqlStore(file), EmbeddedFleet(file, Path(url.database or "heal.db"))
        case "postgresql" | "postgres":
            server = await open_postgresql(url)
            return SqlStore(server), PostgresFleet(server, connecting(url))
        case other:
            raise ConfigurationError(
                f"DATABASE_URL: {other}:// is not supported; use sqlite:///path or postgresql://..."
            )


def open_in_memory() -> Store:
    """A store of one event loop that nothing survives: for simulations."""
    return SqlStore(MemoryDatabase())


def _understood(database_url: str) -> URL:
    try:
        return make_url(one_host(database_url))
    except (ArgumentError, ValueError):
        raise ConfigurationError(
            "DATABASE_URL is no URL; write sqlite:///heal.db or postgresql://user:password@host/database"
        ) from None


__all__ = ["Alone", "open_in_memory", "open_shared", "open_store"]
