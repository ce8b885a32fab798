"""Brings a database to the newest schema; called when a store is opened.

The same migration files serve both databases. Everything happens in the
caller's transaction, so a migration that fails leaves nothing behind, and
processes that start together take turns (an advisory lock on PostgreSQL,
SQLite's write lock and a file lock there).
"""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection

from app.errors import ConfigurationError
from app.store import locks

_MIGRATIONS = Path(__file__).parent / "migrations"


def migration_config(connection: Connection) -> Config:
    """alembic's configuration, bound to a connection that is inside a transaction."""
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def upgrade(connection: Connection) -> None:
    """Apply every migration that is missing; `ConfigurationError` for a schema newer than this program."""
    locks.hold(connection, locks.Space.SCHEMA, ["migrations"])
    try:
        command.upgrade(migration_config(connection), "head")
    except CommandError as error:
        raise ConfigurationError(
            f"DATABASE_URL: the database was written by another version of this program: {error}"
        ) from error
