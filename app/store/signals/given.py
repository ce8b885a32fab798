"""Many values as one parameter: a JSON text that a statement reads as a table.

The text of such a statement does not depend on the number of values. Therefore both databases prepare it
once, and one statement reads all records that a set of deliveries needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Column, Connection, Table, text

from app.agent.ids import ServiceKey
from app.store.database.codec import dumps
from app.store.signals import sqlite_driver

_PARTS = {
    "sqlite": {
        "services": (
            "(SELECT json_extract(value, '$[0]') AS environment, json_extract(value, '$[1]') AS service"
            " FROM json_each(?)) AS given"
        ),
        "texts": "(SELECT value FROM json_each(?)) AS given",
    },
    "postgresql": {
        "services": (
            "(SELECT one->>0 AS environment, one->>1 AS service"
            " FROM json_array_elements(CAST(:given AS json)) AS one) AS given"
        ),
        "texts": "json_array_elements_text(CAST(:given AS json)) AS given(value)",
    },
}


def columns_of(table: Table) -> str:
    """Every column of a table by its full name, for a statement's list of results."""
    return ", ".join(f"{table.name}.{column.name}" for column in table.c)


class GivenStatement:
    """One SELECT over given values, written for both databases.

    `{services}` or `{texts}` is replaced by the values, with the columns `environment` and
    `service`, or `value`. `lock` is the locking clause of PostgreSQL; SQLite has one
    writer and needs none. CROSS JOIN keeps SQLite's planner from reading the other
    table first.
    """

    def __init__(
        self, sql: str, columns: Sequence[Column[Any]], *, lock: str = "", postgresql: str | None = None
    ) -> None:
        """`postgresql` replaces the statement there, where SQLite cannot read its form."""
        self._of_sqlite = sql.format(**_PARTS["sqlite"])
        self._reader = sqlite_driver.RowReader(columns)
        written = f"{postgresql or sql} {lock}".format(**_PARTS["postgresql"])
        self._of_postgresql = text(written).columns(*columns)

    def services(self, connection: Connection, keys: Iterable[ServiceKey]) -> Sequence[Any]:
        """The rows for these services."""
        return self._rows(connection, [[key.environment, key.service] for key in keys])

    def texts(self, connection: Connection, values: Iterable[str]) -> Sequence[Any]:
        """The rows for these texts."""
        return self._rows(connection, list(values))

    def _rows(self, connection: Connection, given: list[Any]) -> Sequence[Any]:
        if not given:
            return ()
        text_of_given = dumps(given)
        if sqlite_driver.is_sqlite(connection):
            return self._reader.read(sqlite_driver.run(connection, self._of_sqlite, [text_of_given]))
        return connection.execute(self._of_postgresql, {"given": text_of_given}).fetchall()
