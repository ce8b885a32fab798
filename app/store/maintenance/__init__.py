"""Backup, restore and schema of one database: maintenance by an operator, without a running agent.

A backup of SQLite is a database file, one of PostgreSQL an archive of `pg_dump`. Both hold
everything: incidents with their timelines, signals, the audit trail of people, and the
digests of tokens.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.engine import URL

from app.errors import ConfigurationError, PermanentError
from app.store import store_url
from app.store.database.servers import one_host
from app.store.database.sqlite import file_of
from app.store.maintenance import postgresql, sqlite
from app.store.maintenance.files import DatabaseKind, kind_of


async def back_up(database_url: str, file: Path) -> int:
    """Write one consistent copy of the database to a new file, and return its size in bytes.

    Agents continue to work. Raises `ConfigurationError` for a missing database or one that is not the
    agent's, and `PermanentError` for a file that exists or cannot be written. An existing file is complete.
    """
    with _new_file(file) as part:
        match _kind(url := store_url(database_url)):
            case DatabaseKind.SQLITE:
                await asyncio.to_thread(sqlite.back_up, file_of(url), part)
            case DatabaseKind.POSTGRESQL:
                await postgresql.back_up(url, one_host(database_url), part)
        return part.stat().st_size


async def restore(database_url: str, file: Path, *, replace: bool) -> Path | None:
    """Put the backup in place of an empty database; returns where a replaced SQLite file is kept.

    With `replace` also in place of a database with records. Raises `ConfigurationError` while an agent runs
    on the database, and `PermanentError` for a file that is not a backup of that kind of database, or for a
    database with records. In these cases nothing is changed.
    """
    url = store_url(database_url)
    kind, found = _kind(url), kind_of(file)
    if found is not kind:
        raise PermanentError(f"{file} is a backup of {found.value}, and DATABASE_URL names {kind.value}")
    match kind:
        case DatabaseKind.SQLITE:
            return await asyncio.to_thread(sqlite.restore, file, file_of(url), replace=replace)
        case DatabaseKind.POSTGRESQL:
            await postgresql.restore(url, one_host(database_url), file, replace=replace)
    return None


async def schema_of(database_url: str) -> str | None:
    """The schema that the database has, such as `0007`; None for an empty or missing one."""
    url = store_url(database_url)
    if _kind(url) is DatabaseKind.SQLITE:
        return await asyncio.to_thread(sqlite.schema_of, file_of(url))
    return await postgresql.schema_of(url)


def _kind(url: URL) -> DatabaseKind:
    match url.drivername:
        case "sqlite":
            return DatabaseKind.SQLITE
        case "postgresql" | "postgres":
            return DatabaseKind.POSTGRESQL
        case other:
            raise ConfigurationError(f"DATABASE_URL: {other}:// is not supported")


@contextmanager
def _new_file(file: Path) -> Iterator[Path]:
    """An empty file beside it, readable by its owner only, that takes its name at the end."""
    part = file.with_name(f"{file.name}.part")
    try:
        if file.exists():
            raise PermanentError(f"{file} exists; name a new file")
        for left in (part, part.with_name(f"{part.name}-journal")):
            left.unlink(missing_ok=True)
        part.touch(mode=0o600, exist_ok=False)
        yield part
        part.rename(file)
    except OSError as error:
        raise PermanentError(f"{file} cannot be written: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)
