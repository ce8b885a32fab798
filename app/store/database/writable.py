"""Whether the database accepts writes: the row that readiness writes, and the space on the disk.

A full disk is one warning for each outage, and one line at its end. While the disk is full, every write
fails and senders repeat theirs: a line for each would hide the first.
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
"""A small write may succeed when a larger one fails: an outage ends after this time without an error."""


class Disk:
    """The state of the disk of one database, from the results of its writes. Thread-safe."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._refusal: DiskFull | None = None
        self._full_at: float | None = None
        """When a write last found the disk full; None while there is no outage."""

    def refused(self, error: BaseException) -> None:
        """Record a failed write; errors other than a full disk are ignored here."""
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
        """Raise `DiskFull` if a write found the disk full within `QUIET_SECONDS`."""
        with self._lock:
            full_at, refusal = self._full_at, self._refusal
        if refusal is not None and full_at is not None and self._monotonic() - full_at < QUIET_SECONDS:
            raise DiskFull(str(refusal), retry_after=refusal.retry_after)

    def wrote(self) -> None:
        """Record a committed write."""
        if self._full_at is None:
            return
        with self._lock:
            over = self._full_at is not None and self._monotonic() - self._full_at >= QUIET_SECONDS
            if over:
                self._full_at = None
        if over:
            log.info("the disk of the database has room again: writes are recorded")


def write(connection: Connection) -> None:
    """Write the row of readiness; it is durable when the caller has the answer."""
    locks.hold(connection, locks.Space.HISTORY, [_ROW])
    now = datetime.now(UTC)
    changed = connection.execute(update(leases).where(leases.c.duty == _ROW).values(expires_at=now)).rowcount
    if not changed:
        connection.execute(insert(leases).values(duty=_ROW, owner=None, expires_at=now))
