"""The statements of the lane in a database that several processes share: one read and one write.

A process cannot use levels from its memory there. A set reads them under the locks of its services, with
the check whether narrow rows may be written: an older program that does not read them may be running.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime

from sqlalchemy import Connection

from app.agent.ids import ServiceKey
from app.agent.ports.store.signals import ServiceLevels
from app.store.database.codec import dumps, read_text
from app.store.signals.levels import Remembered
from app.store.signals.postgresql_driver import run

READ_SINCE = "0010"
"""Programs that know this schema read narrow rows."""

_READ = (
    "WITH present AS MATERIALIZED (SELECT NOT EXISTS (SELECT FROM workers"  # noqa: S608 - constants
    f" WHERE schema IS NULL OR schema < '{READ_SINCE}') AS all_read)"
    " SELECT NULL AS environment, NULL AS service, NULL AS body, NULL AS newest_sample, NULL AS observed_at,"
    " NULL AS of_signals, CASE WHEN all_read THEN ARRAY(SELECT nextval(pg_get_serial_sequence('samples',"
    " 'number')) FROM generate_series(1, $3::int)) END AS numbers FROM present"
    " UNION ALL SELECT service_levels.environment, service_levels.service, CAST(service_levels.body AS text),"
    " service_levels.newest_sample, samples.observed_at, (SELECT max(signals.observed_at) FROM signals"
    " WHERE signals.environment = given.environment AND signals.service = given.service"
    " AND signals.kind = 'metric'), NULL"
    " FROM unnest($1::text[], $2::text[]) AS given(environment, service)"
    " JOIN service_levels ON service_levels.environment = given.environment"
    " AND service_levels.service = given.service"
    " LEFT JOIN samples ON samples.number = service_levels.newest_sample"
)
_WRITE = (
    "WITH added AS (INSERT INTO samples (number, previous, environment, service, observed_at, received_at,"
    " error_rate, p95_latency_ms, flags, sender) SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::text[],"
    " $4::text[], $5::bigint[], $6::bigint[], $7::float8[], $8::float8[], $9::smallint[], $10::text[])),"
    " advanced AS (INSERT INTO service_levels (environment, service, body, newest_sample)"
    " SELECT given.environment, given.service, CAST(given.body AS json), given.newest_sample"
    " FROM unnest($11::text[], $12::text[], $13::text[], $14::bigint[])"
    " AS given(environment, service, body, newest_sample) ON CONFLICT (environment, service)"
    " DO UPDATE SET body = excluded.body, newest_sample = excluded.newest_sample)"
    " INSERT INTO sample_ledger (day, shard, accepted, forgotten)"
    " SELECT given.day, $15::int, given.accepted, 0"
    " FROM unnest($16::date[], $17::bigint[]) AS given(day, accepted) ON CONFLICT (day, shard)"
    " DO UPDATE SET accepted = sample_ledger.accepted + excluded.accepted"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class OnRecord:
    """The records that a set read."""

    known: dict[ServiceKey, Remembered]
    of_signals: Mapping[ServiceKey, datetime]
    """The newest observation among the samples that are signals, of services that have some."""
    numbers: Sequence[int] | None
    """Numbers for new rows, ascending; None while a running process does not read narrow rows."""


def read(connection: Connection, keys: Collection[ServiceKey], many: int) -> OnRecord:
    """The records of these services, whose locks the caller holds, and `many` numbers for new rows."""
    known = {key: Remembered(None, None, None) for key in keys}
    of_signals: dict[ServiceKey, datetime] = {}
    numbers: Sequence[int] | None = None
    names = [key.environment for key in keys], [key.service for key in keys]
    for environment, service, body, newest_sample, observed_at, newest_signal, given in run(
        connection, _READ, *names, many
    ):
        if environment is None:
            numbers = given
            continue
        key = ServiceKey(environment=environment, service=service)
        known[key] = Remembered(read_text(ServiceLevels, body), newest_sample, observed_at)
        if newest_signal is not None:
            of_signals[key] = newest_signal
    return OnRecord(known=known, of_signals=of_signals, numbers=numbers)


def write(
    connection: Connection,
    rows: Iterable[Sequence[object]],
    advanced: Collection[tuple[ServiceKey, Remembered]],
    shard: int,
    counts: Mapping[date, int],
) -> None:
    """Store rows, in the order of the columns of `samples.add`, the levels after them, and the counts."""
    days = sorted(counts)
    run(
        connection,
        _WRITE,
        *zip(*rows, strict=True),
        [key.environment for key, _ in advanced],
        [key.service for key, _ in advanced],
        [dumps(one.levels) for _, one in advanced],
        [one.newest_sample for _, one in advanced],
        shard,
        days,
        [counts[day] for day in days],
    )
