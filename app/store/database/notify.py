"""Notifies workers in the same transaction that an incident became due.

PostgreSQL delivers it after the commit, and only then. On SQLite one process does
everything and is notified directly.
"""

from __future__ import annotations

from sqlalchemy import Connection, text

CHANNEL = "heal_due"


def ring(connection: Connection) -> None:
    """Wake every listening worker once this transaction has committed."""
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"NOTIFY {CHANNEL}"))
