"""Healthy samples as narrow rows, which no index slows down.

The signal id of a sample names its row. The rows of one service form a chain from its newest sample to
older ones, each observed before the one that follows. A query for the samples of a service, or for a
duplicate, walks the chain.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import BigInteger, ColumnElement, Connection, Row, bindparam, case, cast, func, select, text

from app.agent.identity.people import Sender
from app.agent.ids import ServiceKey, SignalId
from app.agent.intake.posted import HTTP
from app.agent.intake.signals import BY_CONTENT, new_signal
from app.agent.models import MetricSample, Signal, SignalKind
from app.store.database.sole_writer import kept_in_memory
from app.store.database.tables import samples, signals
from app.store.signals.bulk import BulkInsert
from app.store.signals.given import GivenStatement

STALE = 1
NOT_CRASH_LOOPING = 2
"""Flags of a row: too old on arrival; reported that the service does not crash loop."""

PREFIX = "sig_ffffffffffffffff"
"""Of the signal ids of rows; the ids of other signals begin with the time of their arrival."""
_ID = re.compile(r"sig_f{16}([0-9]{16})")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_NEXT = "number of the next sample"
_ADD = BulkInsert(
    samples,
    [
        "number",
        "previous",
        "environment",
        "service",
        "observed_at",
        "received_at",
        "error_rate",
        "p95_latency_ms",
        "flags",
        "sender",
    ],
)
_LAST_OF_SIGNALS = text("SELECT max(id) FROM signals WHERE id < 'sig_g'")
"""Rows that a downgrade of the schema turned into signals have the greatest ids of all."""
_CHAIN = (
    "WITH RECURSIVE chain AS ("
    " SELECT samples.*, 1 AS place FROM samples WHERE number = :newest AND observed_at >= :since"
    " UNION ALL SELECT samples.*, chain.place + 1 FROM chain JOIN samples ON samples.number = chain.previous"
    " WHERE samples.observed_at >= :since AND chain.place < :most)"
)
_WALK = text(f"{_CHAIN} SELECT * FROM chain").columns(*samples.c)  # noqa: S608 - constants
_FIND = text(
    f"{_CHAIN} SELECT number, observed_at, place FROM chain"  # noqa: S608 - constants
    " WHERE observed_at IN :wanted OR place = :most ORDER BY place"
).bindparams(bindparam("wanted", expanding=True))
_FROM_NUMBER = text("SELECT number, received_at FROM samples WHERE number >= :number ORDER BY number LIMIT 1")
_NEAR_NUMBER = text(
    "SELECT number FROM (SELECT number, environment, service, observed_at FROM samples WHERE number > :after"
    " ORDER BY number LIMIT :most) AS samples WHERE environment = :environment AND service = :service"
    " AND observed_at >= :at ORDER BY number LIMIT 1"
)
_OBSERVED = GivenStatement(
    "SELECT given.environment, given.service, (SELECT max(signals.observed_at) FROM signals"
    " WHERE signals.environment = given.environment AND signals.service = given.service"
    " AND signals.kind = 'metric') AS observed_at FROM {services}",
    [signals.c.environment, signals.c.service, signals.c.observed_at],
)
_NO_BOUND = 2**31 - 1
NEAR = 1_000
"""Rows of a chain that a search walks from the newest one; for older ones it starts near to them."""
_LOOKED_AT = (2_000, 10_000, 50_000)
"""Rows of all services among which a search looks for one to start at."""


def micros_of(at: datetime) -> int:
    """Microseconds since 1970."""
    return (at - _EPOCH) // _MICROSECOND


def id_of(number: int) -> SignalId:
    """The signal id of a row."""
    return SignalId(f"{PREFIX}{number:016d}")


def number_of(signal_id: str) -> int | None:
    """The row that a signal id names; None for the id of any other signal."""
    found = _ID.fullmatch(signal_id)
    return None if found is None else int(found[1])


def number_in(signal_id: ColumnElement[Any]) -> ColumnElement[int]:
    """The row that a column of signal ids names; NULL for the id of any other signal."""
    number = cast(func.substr(signal_id, len(PREFIX) + 1), BigInteger)
    return case((signal_id.startswith(PREFIX, autoescape=True), number))


# ---------------------------------------------------------------- writing


def next_numbers(connection: Connection, many: int) -> Sequence[int]:
    """Numbers for so many new rows of an SQLite file, growing; a number is never given again."""
    memory = kept_in_memory(connection)
    first = None if memory is None else memory.get(_NEXT)
    if first is None:
        given = connection.execute(select(func.max(samples.c.number))).scalar_one() or 0
        became_signals = connection.execute(_LAST_OF_SIGNALS).scalar_one()
        first = max(given, number_of(became_signals or "") or 0) + 1
    if memory is not None:
        memory[_NEXT] = first + many
    return range(first, first + many)


def add(connection: Connection, rows: Iterable[list[Any]]) -> None:
    """Store rows, each a value for every column in their order."""
    _ADD.run(connection, rows)


def observed_in_signals(connection: Connection, keys: Collection[ServiceKey]) -> dict[ServiceKey, datetime]:
    """The newest observation among the samples that are signals, of services that have some."""
    return {
        ServiceKey(environment=row.environment, service=row.service): row.observed_at
        for row in _OBSERVED.services(connection, keys)
        if row.observed_at is not None
    }


# ---------------------------------------------------------------- reading


def may_repeat(signal: Signal) -> bool:
    """Whether a narrow row may be the same observation: a sample of HTTP that its content identifies."""
    return (
        signal.kind is SignalKind.METRIC and signal.source == HTTP and signal.dedup_key.startswith(BY_CONTENT)
    )


def get(connection: Connection, number: int) -> Signal | None:
    row = connection.execute(select(samples).where(samples.c.number == number)).one_or_none()
    return None if row is None else signal_of(row)


def observed(
    connection: Connection, key: ServiceKey, newest: int | None, moments: Collection[datetime]
) -> tuple[Signal, ...]:
    """The samples of the chain from `newest` on that were observed at one of these moments."""
    if newest is None or not moments:
        return ()
    numbers = _numbers_at(connection, key, newest, sorted({micros_of(at) for at in moments}))
    if not numbers:
        return ()
    # Locked, so that none is deleted before its duplicate signal is on record.
    found = select(samples).where(samples.c.number.in_(numbers)).with_for_update(read=True, key_share=True)
    return tuple(signal_of(row) for row in connection.execute(found))


def _numbers_at(connection: Connection, key: ServiceKey, newest: int, wanted: list[int]) -> list[int]:
    """The rows that were observed then: near the newest one, or beyond, where no walk starts from there."""
    near = _walked(connection, newest, wanted, NEAR)
    numbers = [row.number for row in near if row.observed_at in wanted]
    if not near or near[-1].place < NEAR:
        return numbers
    last = near[-1]
    for at in wanted[: bisect_left(wanted, last.observed_at)]:
        entry = _entry(connection, key, at, last.number)
        numbers += [row.number for row in _walked(connection, entry, [at], _NO_BOUND)]
    return numbers


def _walked(connection: Connection, start: int, wanted: list[int], most: int) -> Sequence[Row[Any]]:
    """Those rows of a chain that were observed then, and the last one if it is longer than that."""
    given = {"newest": start, "since": wanted[0], "most": most, "wanted": wanted}
    return connection.execute(_FIND, given).all()


def _entry(connection: Connection, key: ServiceKey, at: int, last: int) -> int:
    """A row of the service that was observed then or later, near to that; `last` is one.

    Numbers grow with the time of arrival, as a rule, and most samples arrive soon. If not, the walk is
    longer, with the same result.
    """
    low, high = 0, last
    while high - low > 1:
        middle = (low + high) // 2
        row = connection.execute(_FROM_NUMBER, {"number": middle}).one()
        if row.number >= high or row.received_at >= at:
            high = middle
        else:
            low = row.number
    about = {"environment": key.environment, "service": key.service, "at": at, "after": low}
    for most in _LOOKED_AT:
        found = connection.execute(_NEAR_NUMBER, about | {"most": most}).scalar_one_or_none()
        if found is not None:
            return min(int(found), last)
    return last


def since(
    connection: Connection, newest: int | None, start: datetime, most: int
) -> tuple[tuple[datetime, MetricSample], ...]:
    """The newest samples of a chain that were observed since then, at most so many, newest first."""
    if newest is None:
        return ()
    given = {"newest": newest, "since": micros_of(start), "most": most}
    return tuple((moment_of(row.observed_at), _sample_of(row)) for row in connection.execute(_WALK, given))


def signal_of(row: Row[Any]) -> Signal:
    """The signal that a row is."""
    return new_signal(
        key=ServiceKey(environment=row.environment, service=row.service),
        source=HTTP,
        observed_at=moment_of(row.observed_at),
        received_at=moment_of(row.received_at),
        payload=_sample_of(row),
        stale_after=timedelta.min if row.flags & STALE else timedelta.max,
        signal_id=id_of(row.number),
        sender=None if row.sender is None else msgspec.json.decode(row.sender, type=Sender),
    )


def moment_of(micros: int) -> datetime:
    """The moment so many microseconds after the start of 1970."""
    return _EPOCH + timedelta(microseconds=micros)


def _sample_of(row: Row[Any]) -> MetricSample:
    return MetricSample(
        error_rate=row.error_rate,
        p95_latency_ms=row.p95_latency_ms,
        crash_looping=False if row.flags & NOT_CRASH_LOOPING else None,
    )
