"""The kind of database of a backup, and the tables whose data must not be lost."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from app.errors import PermanentError
from app.store.database.tables import (
    brakes,
    leases,
    metadata,
    schema_compatibility,
    statistics_parts,
    statistics_spans,
    statistics_stale,
    workers,
)

REVISION_TABLE = "alembic_version"
"""Where the schema is recorded; a database without it was not made by this agent."""

_MACHINERY = {
    table.name
    for table in (
        leases,
        schema_compatibility,
        statistics_parts,
        statistics_spans,
        statistics_stale,
        workers,
    )
}

RECORDS = tuple(sorted(set(metadata.tables) - _MACHINERY))
"""Tables whose rows are records. The others are rebuilt by every agent that starts."""


def any_record(table: str) -> str:
    """A query for one record; the kill switch as migrations create it, set by no person, is none."""
    where = " WHERE set_by <> ''" if table == brakes.name else ""
    return f"SELECT 1 FROM {table}{where} LIMIT 1"  # noqa: S608 - our own tables


class DatabaseKind(StrEnum):
    """The databases there are; the value is for people."""

    SQLITE = "SQLite"
    POSTGRESQL = "PostgreSQL"


_BEGINNINGS = {b"SQLite format 3\x00": DatabaseKind.SQLITE, b"PGDMP": DatabaseKind.POSTGRESQL}


def kind_of(file: Path) -> DatabaseKind:
    """The kind of database of the backup; `PermanentError` for a file that is not a backup."""
    try:
        with file.open("rb") as opened:
            first = opened.read(max(map(len, _BEGINNINGS)))
    except OSError as error:
        raise PermanentError(f"{file} cannot be read: {error.strerror or error}") from error
    for beginning, kind in _BEGINNINGS.items():
        if first.startswith(beginning):
            return kind
    raise PermanentError(f"{file} is not a backup: neither a SQLite file nor an archive of pg_dump")
