"""The store over SQLite or PostgreSQL: one repository for each aggregate.

The composition root calls `open_shared` and hands the `Store` on; a caller that
needs one repository takes only that one. Every statement of the ports
(`app.agent.ports.store`) is held by the contract suite
`tests/contract/test_store_*.py`, which runs over both databases.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from app.agent.ports.store import Store
from app.agent.ports.workers import Fleet
from app.errors import ConfigurationError
from app.store.analytics.repository import SqlStatistics
from app.store.approvals import SqlApprovals
from app.store.audit_log import SqlAuditLog
from app.store.budgets import SqlBudgets
from app.store.claims import SqlClaims
from app.store.credentials import SqlCredentials
from app.store.database import writable
from app.store.database.memory import MemoryDatabase
from app.store.database.port import Database
from app.store.database.postgresql import open_postgresql
from app.store.database.servers import connecting, one_host
from app.store.database.sqlite import open_sqlite
from app.store.figures import SqlFigures
from app.store.fleet import Alone, EmbeddedFleet, PostgresFleet
from app.store.guardrails import SqlGuardrails
from app.store.history import SqlHistory
from app.store.incidents.repository import SqlIncidents
from app.store.intents import SqlIntents
from app.store.notifications import SqlNotifications
from app.store.responders import SqlResponders
from app.store.signals.accounting import SqlAccounting
from app.store.signals.repository import SqlSignals


async def open_store(database_url: str) -> Store:
    """Open the database at `sqlite:///path` or `postgresql://...` and bring it to the newest schema.

    Raises `ConfigurationError`, which never repeats a password, when the URL
    or the database cannot be used, and `TransientError` when a server does not answer.
    """
    store, _ = await open_shared(database_url)
    return store


async def open_shared(database_url: str) -> tuple[Store, Fleet]:
    """As `open_store`, with the fleet of processes that share it."""
    url = store_url(database_url)
    match url.drivername:
        case "sqlite":
            file = await open_sqlite(url)
            return store_over(file, narrow_samples=True), EmbeddedFleet(file, Path(url.database or "heal.db"))
        case "postgresql" | "postgres":
            server = await open_postgresql(url)
            return store_over(server, narrow_samples=True), PostgresFleet(server, connecting(url))
        case other:
            raise ConfigurationError(
                f"DATABASE_URL: {other}:// is not supported; use sqlite:///path or postgresql://..."
            )


def open_in_memory() -> Store:
    """A store of one event loop that nothing survives: for simulations."""
    return store_over(MemoryDatabase(), narrow_samples=True)


def store_over(database: Database, *, narrow_samples: bool = False) -> Store:
    """Every repository over one open database.

    With `narrow_samples` healthy samples are recorded in narrow rows, which processes of a
    version before schema 0010 do not read. An SQLite file serves one process. On PostgreSQL
    each set of deliveries checks whether such a process is registered, and writes no narrow rows then.
    Without it no narrow rows are written; existing ones are read.
    """

    async def answers() -> None:
        await database.same()
        await database.write(writable.write, urgent=True)

    return Store(
        signals=SqlSignals(database, narrow_samples=narrow_samples),
        incidents=SqlIncidents(database),
        claims=SqlClaims(database),
        intents=SqlIntents(database),
        budgets=SqlBudgets(database),
        approvals=SqlApprovals(database),
        responders=SqlResponders(database),
        guardrails=SqlGuardrails(database),
        history=SqlHistory(database),
        accounting=SqlAccounting(database),
        credentials=SqlCredentials(database),
        audit_log=SqlAuditLog(database),
        notifications=SqlNotifications(database),
        figures=SqlFigures(database),
        statistics=SqlStatistics(database),
        ping=answers,
        close=database.close,
    )


def store_url(database_url: str) -> URL:
    """The URL with several hosts in its query; raises `ConfigurationError` for an invalid URL."""
    try:
        return make_url(one_host(database_url))
    except (ArgumentError, ValueError):
        raise ConfigurationError(
            "DATABASE_URL is not a valid URL; write sqlite:///heal.db or postgresql://user:password@host/database"
        ) from None


__all__ = ["Alone", "open_in_memory", "open_shared", "open_store", "store_over", "store_url"]
