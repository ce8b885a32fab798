"""Brings a database to the newest schema; called when a store is opened.

The same migration files serve both databases. Everything happens in the
caller's transaction, so a migration that fails leaves nothing behind, and
processes that start together take turns (an advisory lock on PostgreSQL,
SQLite's write lock and a file lock there).

Each migration names the oldest schema whose programs may use the result (`compatible_since`), and the
database stores it. During a rolling deploy, or after a return to an older version, a program can therefore
start on a newer schema, and refuses one that it would damage.
"""

from __future__ import annotations

import logging
from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, delete, insert, inspect, select
from sqlalchemy.exc import DBAPIError

from app.errors import ConfigurationError
from app.store.database import locks
from app.store.database.tables import schema_compatibility

log = logging.getLogger(__name__)

ATTEMPTS = 5
_DEADLOCK = "40P01"
_MIGRATIONS = Path(__file__).parent.parent / "migrations"


def migration_config(connection: Connection) -> Config:
    """alembic's configuration, bound to a connection that is inside a transaction."""
    config = Config()
    _locate(config)
    config.attributes["connection"] = connection
    return config


def _locate(config: Config) -> None:
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")


def upgrade(connection: Connection) -> None:
    """Apply every migration that is missing; `ConfigurationError` for a schema this program must not use."""
    locks.hold(connection, locks.Space.SCHEMA, ["migrations"])
    head, ours = _ours()
    present = MigrationContext.configure(connection).get_current_revision()
    if present == head:
        return
    if present is not None and present not in ours:
        _require_compatible(connection, present, known=set(ours))
        log.info("the database has schema %s, newer than this program's %s, which may use it", present, head)
        return
    _migrate(connection, migration_config(connection))
    connection.execute(delete(schema_compatibility))
    connection.execute(insert(schema_compatibility).values(revision=head, since=ours[head]))


def newest_schema() -> str:
    """The schema of this program, such as `0007`."""
    return _ours()[0]


@cache
def _ours() -> tuple[str, dict[str, str]]:
    """The newest migration of this program, and for each of them since which schema programs may use it."""
    config = Config()
    _locate(config)
    script = ScriptDirectory.from_config(config)
    head = script.get_current_head()
    if head is None:
        raise ConfigurationError("this installation has no migrations; reinstall it")
    return head, {
        one.revision: getattr(one.module, "compatible_since", one.revision) for one in script.walk_revisions()
    }


def _migrate(connection: Connection, config: Config) -> None:
    """Migrate in one transaction; on a deadlock with running processes, roll back and retry."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with connection.begin_nested():
                command.upgrade(config, "head")
        except DBAPIError as error:
            if attempt == ATTEMPTS or getattr(error.orig, "sqlstate", None) != _DEADLOCK:
                raise
        else:
            return


def _require_compatible(connection: Connection, present: str, *, known: set[str]) -> None:
    """A newer schema records the oldest schema version that a program must know to use it."""
    since = None
    if inspect(connection).has_table(schema_compatibility.name):
        since = connection.execute(
            select(schema_compatibility.c.since).where(schema_compatibility.c.revision == present)
        ).scalar_one_or_none()
    if since is None or since not in known:
        raise ConfigurationError(
            f"DATABASE_URL: the database was written by another version of this program (schema {present}), "
            f"which serves programs since schema {since or present}; start that version or a newer one"
        )
