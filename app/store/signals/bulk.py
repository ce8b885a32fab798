"""An INSERT of many rows in one call of the driver, with values that are ready for it.

On PostgreSQL it is one statement with an array for each column.

For the statements that every signal needs: SQLAlchemy builds a dictionary and looks up a processor for each
value of each row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy import JSON, BigInteger, Boolean, Connection, Double, SmallInteger, Table, Text
from sqlalchemy.types import TypeEngine

from app.errors import Invalid
from app.store.database.codec import dumps
from app.store.database.tables import UtcDateTime
from app.store.signals import postgresql_driver, sqlite_driver


class BulkInsert:
    """One statement over these columns of a table; `conflict` is the clause after the values."""

    def __init__(self, table: Table, names: Sequence[str], conflict: str = "") -> None:
        into = f"INSERT INTO {table.name} ({', '.join(names)})"
        kinds = [_array_of(table.c[name].type) for name in names]
        arrays = [f"${place}::{kind.array}[]" for place, kind in enumerate(kinds, 1)]
        values = [kind.value.format(f"given.{name}") for name, kind in zip(names, kinds, strict=True)]
        of_given = f"SELECT {', '.join(values)} FROM unnest({', '.join(arrays)}) AS given"  # noqa: S608 - constants
        marks = ", ".join(["?"] * len(names))
        self._sql = {
            "sqlite": f"{into} VALUES ({marks}) {conflict}".rstrip(),
            "postgresql": f"{into} {of_given}({', '.join(names)}) {conflict}".rstrip(),
        }
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
            postgresql_driver.run(connection, self._sql[dialect], *zip(*values, strict=True))


class _Array(NamedTuple):
    """How PostgreSQL receives the values of a column: as one array for all rows."""

    array: str
    """The type of its elements."""
    value: str = "{}"
    """The SQL expression that converts an element to a value of the column."""


_ARRAYS: tuple[tuple[type[TypeEngine[Any]], _Array], ...] = (
    (JSON, _Array("text", "CAST({} AS json)")),
    (UtcDateTime, _Array("timestamptz")),
    (Boolean, _Array("boolean")),
    (Double, _Array("float8")),
    (SmallInteger, _Array("smallint")),
    (BigInteger, _Array("bigint")),
    (Text, _Array("text")),
)


def _array_of(kind: TypeEngine[Any]) -> _Array:
    return next(array for each, array in _ARRAYS if isinstance(kind, each))


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
