"""The ledger of accepted signals and the tally of forgotten ones (promise 9).

Intake counts accepted signals in the transaction that stores them, by a separate statement, and
`signals.prune` counts deleted ones: the ledger equals the rows plus the deletions, or a signal was lost.
Days are those of arrival, in UTC.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, date, datetime

from sqlalchemy import BigInteger, Connection, Date, Integer, Text, bindparam, select, text, update

from app.agent.ids import ServiceKey
from app.store.database.tables import signals
from app.store.signals import sqlite_driver

SHARDS = 64
"""Transactions of different services seldom meet on one row of the ledger, and never for long."""
ENTERED_AT_ONCE = 500
_LATER = -1
"""The shard for signals from before the ledger, or from programs without one."""

_ENTER = text(
    "INSERT INTO intake_ledger (day, shard, accepted) VALUES (:day, :shard, :accepted)"
    " ON CONFLICT (day, shard) DO UPDATE SET accepted = intake_ledger.accepted + excluded.accepted"
).bindparams(
    bindparam("day", type_=Date), bindparam("shard", type_=Integer), bindparam("accepted", type_=BigInteger)
)
_TALLY = text(
    "INSERT INTO signal_tally (day, disposition, forgotten) VALUES (:day, :disposition, :forgotten)"
    " ON CONFLICT (day, disposition) DO UPDATE SET forgotten = signal_tally.forgotten + excluded.forgotten"
).bindparams(
    bindparam("day", type_=Date),
    bindparam("disposition", type_=Text),
    bindparam("forgotten", type_=BigInteger),
)


def day_of(received_at: datetime) -> date:
    return (received_at if received_at.tzinfo is UTC else received_at.astimezone(UTC)).date()


def enter(connection: Connection, first: ServiceKey, arrivals: Iterable[datetime]) -> None:
    """Count accepted signals by their times of arrival.

    The last statement of a transaction that takes locks: the ledger's rows are
    held only until the commit.
    """
    _enter(connection, zlib.crc32(str(first).encode("utf-8", "replace")) % SHARDS, arrivals)


def enter_later(connection: Connection) -> int:
    """Enter signals that a program without a ledger accepted, a bounded number at a time; how many."""
    waiting = connection.execute(
        select(signals.c.number, signals.c.received_at)
        .where(text("NOT ledgered"))
        .order_by(signals.c.number)
        .limit(ENTERED_AT_ONCE)
        .with_for_update(skip_locked=True)
    ).all()
    if waiting:
        numbers = [row.number for row in waiting]
        connection.execute(update(signals).where(signals.c.number.in_(numbers)).values(ledgered=True))
        _enter(connection, _LATER, (row.received_at for row in waiting))
    return len(waiting)


def tally(connection: Connection, forgotten: Iterable[tuple[datetime, str]]) -> None:
    """Count forgotten signals by their times of arrival and dispositions."""
    counts = Counter((day_of(received_at), disposition) for received_at, disposition in forgotten)
    for (day, disposition), count in sorted(counts.items()):
        connection.execute(_TALLY, {"day": day, "disposition": disposition, "forgotten": count})


def _enter(connection: Connection, shard: int, arrivals: Iterable[datetime]) -> None:
    counts = sorted(Counter(map(day_of, arrivals)).items())
    if sqlite_driver.is_sqlite(connection):
        rows = [{"day": day.isoformat(), "shard": shard, "accepted": count} for day, count in counts]
        sqlite_driver.run_many(connection, _ENTER.text, rows)
        return
    for day, count in counts:
        connection.execute(_ENTER, {"day": day, "shard": shard, "accepted": count})
