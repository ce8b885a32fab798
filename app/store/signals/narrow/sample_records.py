"""The accounting and the end of narrow samples (promise 9): their ledger, their days, deleted samples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from types import MappingProxyType
from typing import Any

from sqlalchemy import (
    BigInteger,
    Connection,
    Date,
    Integer,
    bindparam,
    delete,
    exists,
    func,
    select,
    text,
)

from app.store.database.tables import sample_ledger, samples, signals
from app.store.signals import sqlite_driver
from app.store.signals.narrow.samples import micros_of

BATCH = 500
"""Rows that one transaction deletes at most."""
LOOKED_AT = 5_000
"""Rows among which one transaction looks for those that may be deleted."""
_FORGETTING = -1
"""The shard of the ledger that counts deleted samples."""
_DAY_MICROS = 86_400_000_000
_FIRST_DAY = date(1970, 1, 1)
_NONE: Mapping[date, int] = MappingProxyType({})

_ENTER = text(
    "INSERT INTO sample_ledger (day, shard, accepted, forgotten) VALUES (:day, :shard, :accepted, :forgotten)"
    " ON CONFLICT (day, shard) DO UPDATE SET accepted = sample_ledger.accepted + excluded.accepted,"
    " forgotten = sample_ledger.forgotten + excluded.forgotten"
).bindparams(
    bindparam("day", type_=Date),
    bindparam("shard", type_=Integer),
    bindparam("accepted", type_=BigInteger),
    bindparam("forgotten", type_=BigInteger),
)
_IDENTITY = {
    "sqlite": text("printf('sig_ffffffffffffffff%016d', samples.number)"),
    "postgresql": text("'sig_ffffffffffffffff' || lpad(CAST(samples.number AS text), 16, '0')"),
}
"""The signal id of a row."""
_PRESENT = text(
    f"SELECT received_at / {_DAY_MICROS} AS day, count(*) AS count FROM samples"  # noqa: S608 - constants
    " WHERE received_at >= :start GROUP BY 1"
)
_LOOKED = (
    "(SELECT number, received_at FROM samples WHERE number > :after"
    " AND number < (SELECT max(number) FROM samples) ORDER BY number LIMIT :looked_at) AS samples"
    " WHERE samples.received_at < :older_than"
)
_PAST = {
    dialect: text(
        f"SELECT samples.number FROM {_LOOKED}"  # noqa: S608 - constants
        f" AND NOT EXISTS (SELECT 1 FROM signals WHERE signals.duplicate_of = {identity.text})"
        f" ORDER BY samples.number LIMIT {BATCH}"
    )
    for dialect, identity in _IDENTITY.items()
}
_LAST_PAST = text(f"SELECT max(samples.number) FROM {_LOOKED}")  # noqa: S608 - constants


def by_day(arrivals: Iterable[tuple[datetime, int]]) -> Counter[date]:
    """How many samples arrived on each day."""
    counts: Counter[date] = Counter()
    for received_at, many in arrivals:
        counts[received_at.astimezone(UTC).date()] += many
    return counts


def enter(connection: Connection, shard: int, arrivals: Iterable[tuple[datetime, int]]) -> None:
    """Count accepted samples by their times of arrival; the last statement of its transaction."""
    _count(connection, shard, accepted=by_day(arrivals))


def accepted(connection: Connection, since: date | None) -> Counter[date]:
    """How many were accepted on each day."""
    return Counter({row.day: int(row.accepted) for row in _entries(connection, since)})


def forgotten(connection: Connection, since: date | None) -> Counter[date]:
    """How many of each day were deleted since."""
    return Counter({row.day: int(row.forgotten) for row in _entries(connection, since)})


def present(connection: Connection, since: date | None) -> Counter[date]:
    """How many rows arrived on each day."""
    start = 0 if since is None else (since - _FIRST_DAY).days * _DAY_MICROS
    return Counter({_day(row.day): row.count for row in connection.execute(_PRESENT, {"start": start})})


def prune(connection: Connection, older_than: datetime, after: int) -> tuple[int, int | None]:
    """Delete rows that arrived before that, oldest first, at most `BATCH` of `LOOKED_AT` after a number.

    Return how many, and the number after which to continue; None once no older row follows. The newest row
    stays, because its number must not be reused, and so do samples with a duplicate signal; many of them in
    a row do not hide later rows.
    """
    bounds = {"older_than": micros_of(older_than), "after": after, "looked_at": LOOKED_AT}
    numbers = connection.execute(_PAST[connection.dialect.name], bounds).scalars().all()
    if not numbers:
        return 0, connection.execute(_LAST_PAST, bounds).scalar_one()
    if connection.dialect.name == "postgresql":
        # The database refuses to delete samples in transactions that do not account for them.
        connection.execute(text("SELECT set_config('heal.forgetting', 'accounted', true)"))
    here = select(samples.c.number).where(samples.c.number.in_(numbers)).with_for_update(skip_locked=True)
    locked = connection.execute(here).scalars().all()
    # Asked again now that the rows are locked: a duplicate may have come in between.
    repeated = exists().where(signals.c.duplicate_of == _IDENTITY[connection.dialect.name])
    gone = connection.execute(
        delete(samples).where(samples.c.number.in_(locked), ~repeated).returning(samples.c.received_at)
    ).scalars()
    counts = Counter(_day(received_at // _DAY_MICROS) for received_at in gone)
    _count(connection, _FORGETTING, forgotten=counts)
    return counts.total(), numbers[-1]


def _entries(connection: Connection, since: date | None) -> Sequence[Any]:
    wanted = select(
        sample_ledger.c.day,
        func.sum(sample_ledger.c.accepted).label("accepted"),
        func.sum(sample_ledger.c.forgotten).label("forgotten"),
    )
    if since is not None:
        wanted = wanted.where(sample_ledger.c.day >= since)
    return connection.execute(wanted.group_by(sample_ledger.c.day)).all()


def _count(
    connection: Connection,
    shard: int,
    *,
    accepted: Mapping[date, int] = _NONE,
    forgotten: Mapping[date, int] = _NONE,
) -> None:
    rows = [
        {"day": day, "shard": shard, "accepted": accepted.get(day, 0), "forgotten": forgotten.get(day, 0)}
        for day in sorted({*accepted, *forgotten})
    ]
    if sqlite_driver.is_sqlite(connection):
        written = [row | {"day": str(row["day"])} for row in rows]
        sqlite_driver.run_many(connection, _ENTER.text, written)
        return
    for row in rows:
        connection.execute(_ENTER, row)


def _day(number: int) -> date:
    """The day with that number since 1970."""
    return _FIRST_DAY + timedelta(days=number)
