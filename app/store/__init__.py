"""The store: signals, incidents and history over SQLite or PostgreSQL.

The composition root calls `open_store` and hands the result on as the `Store`
port. Every sentence of that port is held by the contract suite
`tests/contract/test_store_*.py`, which runs over both databases.
"""

from __future__ import annotations

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from app.agent.ports import Store
from app.errors import ConfigurationError
from app.store.postgresql import open_postgresql
from app.store.sql_store import SqlStore
from app.store.sqlite import open_sqlite


async def open_store(database_url: str) -> Store:
    """Open the database at `sqlite:///path` or `postgresql://...` and bring it to the newest schema.

    Raises `ConfigurationError`, which never repeats a password, when the URL
    or the database cannot be used, and `TransientError` when a server does not answer.
    """
    try:
        url = make_url(database_url)
    except (ArgumentError, ValueError):
        raise ConfigurationError(
            "DATABASE_URL is no URL; write sqlite:///heal.db or postgresql://user:password@host/database"
        ) from None
    match url.drivername:
        case "sqlite":
            return SqlStore(await open_sqlite(url))
        case "postgresql" | "postgres":
            return SqlStore(await open_postgresql(url))
        case other:
            raise ConfigurationError(
                f"DATABASE_URL: {other}:// is not supported; use sqlite:///path or postgresql://..."
            )


__all__ = ["open_store"]
