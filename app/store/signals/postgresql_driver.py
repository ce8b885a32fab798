"""Statements given to PostgreSQL's driver as they are.

For the few statements that every set of healthy samples pays for: SQLAlchemy's way to
the driver and back costs more than the driver itself. The driver prepares each text once
for each connection. Errors are the driver's own, which the database translates.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection
from sqlalchemy.util import await_only


def is_postgresql(connection: Connection) -> bool:
    """Whether the statements of this module can be run."""
    return connection.dialect.name == "postgresql"


def run(connection: Connection, sql: str, *values: object) -> list[Any]:
    """The rows of one statement, in the transaction of the connection."""
    driver: Any = connection.connection.driver_connection
    if not driver.is_in_transaction():  # SQLAlchemy begins it with its own first statement
        connection.exec_driver_sql("SELECT 1")
    rows: list[Any] = await_only(driver.fetch(sql, *values))
    return rows
