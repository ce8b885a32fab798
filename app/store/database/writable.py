"""Whether the database takes writes: a row of readiness's own, and the room on its disk.

A full disk is one warning for each outage, and one line at its end. Both databases keep one
`Disk`. Writes are refused one by one while the disk is full, and senders repeat theirs: a
line for each of them would hide the first.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

from sqlalchemy import Connection, insert, update

from app.store.database import locks
from app.store.database.port import DiskFull
from app.store.database.tables import leases

log = logging.getLogger(__name__)

_ROW = "readiness"
QUIET_SECONDS = 60.0
"""A small write may find room where a larger one did not: an outage ends after this long without an error."""


class Disk:
    """The room on the disk of one database, as its writes meet it. Safe from any thread."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._refusal: DiskFull | None = None
        self._full_at: float | None = None
        """When a write last found the disk full; None while there is no outage."""

    def refused(self, error: BaseException) -> None:
        """A write failed; anything but a full disk is reported elsewhere."""
        if not isinstance(error, DiskFull):
            return
        with self._lock:
            first, self._full_at = self._full_at is None, self._monotonic()
            self._refusal = error
        if first:
            log.warning(
                "the disk of the database is full: nothing is recorded, senders are answered with 503 and "
                "no action begins; free space on it: %s",
                error,
            )

    def require_room(self) -> None:
        """Raise `DiskFull` if a write was refused for it within `QUIET_SECONDS`."""
        with self._lock:
            full_at, refusal = self._full_at, self._refusal
        if refusal is not None and full_at is not None and self._monotonic() - full_at < QUIET_SECONDS:
            raise DiskFull(str(refusal), retry_after=refusal.retry_after)

    def wrote(self) -> None:
        """A write that changed something was committed."""
        if self._full_at is None:
            return
        with self._lock:
            over = self._full_at is not None and self._monotonic() - self._full_at >= QUIET_SECONDS
            if over:
                self._full_at = None
        if over:
            log.info("the disk of the database has room again: writes are recorded")


def write(connection: Connection) -> None:
    """Write the row; as every unit of work, it is durable when the caller has its answer."""
    locks.hold(connection, locks.Space.HISTORY, [_ROW])
    now = datetime.now(UTC)
    changed = connection.execute(update(leases).where(leases.c.duty == _ROW).values(expires_at=now)).rowcount
    if not changed:
        connection.execute(insert(leases).values(duty=_ROW, owner=None, expires_at=now))
