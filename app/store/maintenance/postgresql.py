"""Backup and restore of a PostgreSQL database, by `pg_dump` and `pg_restore`.

The programs take the password from their environment, never from their arguments, which
every user of the machine can read.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy.engine import URL, make_url

from app.errors import ConfigurationError, PermanentError
from app.store.database import locks
from app.store.database.postgresql import DRIVER_ERRORS, as_agent_error
from app.store.database.servers import connecting
from app.store.database.tables import incidents, metadata
from app.store.maintenance.files import RECORDS, REVISION_TABLE, any_record

_SHARED = ("--no-owner", "--no-privileges")
"""A backup is restored by another account, too."""
_MOST_SHOWN = 5
_ENTRY = re.compile(r"^\d+; \d+ \d+ (?:TABLE|FUNCTION) \S+ ([A-Za-z_][A-Za-z0-9_]*)(?:\(\))? ", re.MULTILINE)
"""A table or a function in the list of an archive."""
_REQUIRED = {REVISION_TABLE, incidents.name}


async def back_up(url: URL, address: str, file: Path) -> None:
    """Dump the database into an existing, empty file."""
    if await schema_of(url) is None:
        raise ConfigurationError("DATABASE_URL: the database has no tables of this agent")
    await _run(address, "pg_dump", "--format=custom", *_SHARED, f"--file={file}")
    await _run(None, "pg_restore", "--list", str(file))


async def restore(url: URL, address: str, file: Path, *, replace: bool) -> None:
    """Load the archive in one transaction; with `replace` in place of the existing records.

    Tables that an older archive lacks would stay: in this case the agent's tables are dropped first, in a
    separate transaction, after the archive was read to its end.
    """
    archived = await _archived(file)
    async with _connected(url) as connection:
        if await _has_table(connection, "workers") and await _agents(connection):
            raise ConfigurationError("DATABASE_URL: agents run on this database; stop them first")
        if not replace and await _filled(connection):
            raise PermanentError(
                "the database has records; restore into another database, or give --replace to overwrite them"
            )
        tables = await _tables(connection)
        functions = await _functions(connection, tables)
        if not archived >= {*tables, *functions}:
            await _run(None, "pg_restore", f"--file={os.devnull}", str(file))
            await _drop(connection, tables, functions)
    await _run(
        address,
        "pg_restore",
        *("--clean", "--if-exists", "--single-transaction", "--exit-on-error", *_SHARED),
        str(file),
    )


async def _archived(file: Path) -> frozenset[str]:
    """Names of the tables and functions in the archive; `PermanentError` if it is not the agent's."""
    listed = await _run(None, "pg_restore", "--list", str(file))
    names = frozenset(_ENTRY.findall(listed))
    if not names >= _REQUIRED:
        raise PermanentError(f"{file} is not a backup of this agent but of another database")
    return names


async def _tables(connection: Any) -> list[str]:
    """The agent's tables that are there."""
    return [name for name in (*metadata.tables, REVISION_TABLE) if await _has_table(connection, name)]


async def _functions(connection: Any, tables: list[str]) -> list[str]:
    """The functions that triggers of these tables run; none takes an argument."""
    found = await connection.fetch(
        "SELECT DISTINCT p.proname FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid"
        " WHERE NOT t.tgisinternal AND t.tgrelid = ANY($1::text[]::regclass[])",
        tables,
    )
    return [str(row[0]) for row in found]


async def _drop(connection: Any, tables: list[str], functions: list[str]) -> None:
    """Drop tables and functions, all or none; fails where anything else needs them."""
    async with connection.transaction():
        await connection.execute(f"DROP TABLE {', '.join(tables)}")
        for name in functions:
            await connection.execute(f'DROP FUNCTION "{name}"()')


async def schema_of(url: URL) -> str | None:
    """The schema of the database; None for one without the agent's tables."""
    async with _connected(url) as connection:
        if not await _has_table(connection, REVISION_TABLE):
            return None
        found = await connection.fetchval(f"SELECT version_num FROM {REVISION_TABLE}")  # noqa: S608 - a constant
        return None if found is None else str(found)


@asynccontextmanager
async def _connected(url: URL) -> AsyncIterator[Any]:
    """A connection without time limits, closed afterwards."""
    try:
        connection = await connecting(url, limits={})()
    except DRIVER_ERRORS as error:
        raise as_agent_error(error) from error
    try:
        yield connection
    except DRIVER_ERRORS as error:
        raise as_agent_error(error) from error
    finally:
        await connection.close()


async def _has_table(connection: Any, name: str) -> bool:
    return await connection.fetchval("SELECT to_regclass($1)", name) is not None


async def _agents(connection: Any) -> int:
    """How many processes are alive: each holds a lock on the number of its row."""
    taken = (
        "SELECT count(*) FROM workers WHERE NOT pg_try_advisory_xact_lock($1::int, number::int)"
        " AND entered_at IS NOT NULL"
    )
    async with connection.transaction():
        return int(await connection.fetchval(taken, int(locks.Space.ALIVE)))


async def _filled(connection: Any) -> bool:
    for table in RECORDS:
        there = await _has_table(connection, table)
        if there and await connection.fetchval(any_record(table)) is not None:
            return True
    return False


async def _run(address: str | None, program: str, *arguments: str) -> str:
    """The output of one of PostgreSQL's programs; `PermanentError` with its message if it fails."""
    found = shutil.which(program)
    if found is None:
        raise ConfigurationError(
            f"{program} is not installed: install PostgreSQL's client programs of the server's version or "
            "newer (Debian: postgresql-client)"
        )
    environment, database = dict(os.environ), []
    if address is not None:
        shown, password = _without_password(address)
        database = [f"--dbname={shown}"]
        if password:
            environment["PGPASSWORD"] = password
    process = await asyncio.create_subprocess_exec(
        found,
        *database,
        *arguments,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        printed, errors = await process.communicate()
    except asyncio.CancelledError:
        process.terminate()
        await process.wait()
        raise
    if process.returncode:
        lines = errors.decode(errors="replace").strip().splitlines()
        raise PermanentError(f"{program} failed: {'; '.join(lines[:_MOST_SHOWN])}")
    return printed.decode(errors="replace")


def _without_password(address: str) -> tuple[str, str | None]:
    """The address for an argument, and the password for the environment."""
    url = make_url(address)
    in_query = url.query.get("password")
    password = url.password or (in_query if isinstance(in_query, str) else None)
    shown = url.difference_update_query(["password"])._replace(drivername="postgresql", password=None)
    return shown.render_as_string(hide_password=False), password
