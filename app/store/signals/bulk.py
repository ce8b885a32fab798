"""An INSERT of many rows in one call of the driver, with values that are ready for it.

For the statements that every signal needs: SQLAlchemy builds a dictionary and looks up a processor for each
value of each row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, Connection, Table

from app.errors import Invalid
from app.store.database.codec import dumps
from app.store.database.tables import UtcDateTime
from app.store.signals import sqlite_driver


class BulkInsert:
    """One statement over these columns of a table; `conflict` is the clause after the values."""

    def __init__(self, table: Table, names: Sequence[str], conflict: str = "") -> None:
        into = f"INSERT INTO {table.name} ({', '.join(names)}) VALUES"
        marks = {
            "sqlite": ["?"] * len(names),
            "postgresql": [f"${place}" for place in range(1, len(names) + 1)],
        }
        self._sql = {name: f"{into} ({', '.join(each)}) {conflict}".rstrip() for name, each in marks.items()}
        self._ready = {
            name: [
                (place, ready)
                for place, column in enumerate(names)
                if (ready := _ready(table.c[column].type, name)) is not None
            ]
            for name in self._sql
        }

    def run(self, connection: Connection, rows: Iterable[list[Any]]) -> None:
        """Store the rows, each with one value per column, in order. Without rows it does nothing."""
        dialect = connection.dialect.name
        ready, values = self._ready[dialect], list(rows)
        if not values:
            return
        for place, convert in ready:
            last: object = values
            converted = None
            for row in values:
                if row[place] is not last:  # rows of one delivery share their sender and their arrival
                    last = row[place]
                    converted = convert(last)
                row[place] = converted
        if dialect == "sqlite":
            sqlite_driver.run_many(connection, self._sql[dialect], values)
        else:
            connection.exec_driver_sql(self._sql[dialect], [tuple(row) for row in values])


def _ready(kind: object, dialect: str) -> Callable[[Any], Any] | None:
    """Converts a value of that type to one that the driver accepts; None if no conversion is needed."""
    if isinstance(kind, JSON):
        return _json
    if isinstance(kind, UtcDateTime):
        return _text_of if dialect == "sqlite" else _in_utc
    return None


def _json(value: object) -> str | None:
    return None if value is None else dumps(value)


def _in_utc(at: datetime | None) -> datetime | None:
    if at is None:
        return None
    if at.tzinfo is None:
        raise Invalid(f"a value cannot be stored: the time {at.isoformat()} has no zone")
    return at if at.tzinfo is UTC else at.astimezone(UTC)


def _text_of(at: datetime | None) -> str | None:
    """As SQLAlchemy writes times to SQLite: the naive UTC time with microseconds."""
    utc = _in_utc(at)
    # A time in UTC ends in "+00:00".
    return None if utc is None else utc.isoformat(" ", "microseconds")[:-6]
