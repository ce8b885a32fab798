"""Statements passed unchanged to SQLite's driver.

For the few statements that every set of signals needs: SQLAlchemy's overhead is ten times the time that
SQLite needs to run one. Values and rows are those of the columns' types, as everywhere; errors are the
driver's own, which `translated` knows.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Column, Connection
from sqlalchemy.dialects import sqlite

from app.store.database import codec

_make_dialect: Any = sqlite.dialect
_DIALECT = _make_dialect(json_serializer=codec.dumps, json_deserializer=codec.loads)


def is_sqlite(connection: Connection) -> bool:
    """Whether the statements of this module can be run."""
    return connection.dialect.name == "sqlite"


def run(connection: Connection, sql: str, values: Sequence[Any] = ()) -> list[Any]:
    """The rows of one statement, as the driver gives them."""
    rows: list[Any] = _driver(connection).execute(sql, values).fetchall()
    return rows


def run_many(
    connection: Connection, sql: str, rows: Iterable[Sequence[Any]] | Iterable[Mapping[str, Any]]
) -> None:
    """One statement for each of these rows of values."""
    _driver(connection).executemany(sql, rows)


class RowReader:
    """Makes rows with the names and types of these columns."""

    def __init__(self, columns: Sequence[Column[Any]]) -> None:
        self._row: Callable[..., Any] = namedtuple("Row", [column.name for column in columns])  # type: ignore[misc]
        self._reads = [
            (place, read)
            for place, column in enumerate(columns)
            if (read := column.type.dialect_impl(_DIALECT).result_processor(_DIALECT, None)) is not None
        ]

    def read(self, rows: Iterable[Sequence[Any]]) -> list[Any]:
        """The rows, with the columns as attributes."""
        found = []
        for row in rows:
            values = list(row)
            for place, read in self._reads:
                values[place] = read(values[place])
            found.append(self._row(*values))
        return found


def _driver(connection: Connection) -> Any:
    return connection.connection.driver_connection
