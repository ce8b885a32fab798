"""Statements that go directly to PostgreSQL's driver.

For the few statements of every set of healthy samples: SQLAlchemy's layers cost more than the driver
itself. The driver prepares each text once per connection. It raises its own errors, which the database
translates.
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
