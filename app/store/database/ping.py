"""Whether the database accepts writes: tested on a separate row that nothing else reads."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import Connection, insert, update

from app.store.database import locks
from app.store.database.tables import leases

_ROW = "readiness"


def write(connection: Connection) -> None:
    """Write the row; as every unit of work, it is durable when the caller has its answer."""
    locks.hold(connection, locks.Space.HISTORY, [_ROW])
    now = datetime.now(UTC)
    changed = connection.execute(update(leases).where(leases.c.duty == _ROW).values(expires_at=now)).rowcount
    if not changed:
        connection.execute(insert(leases).values(duty=_ROW, owner=None, expires_at=now))
