"""The stored state of each service: its levels, as one bounded row, and its newest sample.

On SQLite the newest levels are also kept in memory, with the connection that writes the file. They are
dropped when another connection has changed the file (its `data_version`), and when a transaction of this
one fails. On PostgreSQL any process may change them at any time; they are read in each transaction.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping

import msgspec
from sqlalchemy import Connection, bindparam, select

from app.agent.ids import ServiceKey
from app.agent.intake.posted import HealthyRun
from app.agent.ports.store.signals import ServiceLevels
from app.store.database.codec import read
from app.store.database.sole_writer import kept_in_memory
from app.store.database.tables import samples, service_levels
from app.store.signals.bulk import BulkInsert
from app.store.signals.given import GivenStatement

MOST_CACHED = 50_000
"""Services whose levels are kept in memory, some 50 MB; the one that was used longest ago goes first."""

_LEVELS = GivenStatement(
    "SELECT service_levels.environment, service_levels.service, service_levels.body,"
    " service_levels.newest_sample, samples.observed_at"
    " FROM {services} CROSS JOIN service_levels"
    " LEFT JOIN samples ON samples.number = service_levels.newest_sample"
    " WHERE service_levels.environment = given.environment AND service_levels.service = given.service",
    [
        service_levels.c.environment,
        service_levels.c.service,
        service_levels.c.body,
        service_levels.c.newest_sample,
        samples.c.observed_at,
    ],
)
_OF_ONE = (
    service_levels.c.environment == bindparam("environment"),
    service_levels.c.service == bindparam("service"),
)
_BODY = select(service_levels.c.body).where(*_OF_ONE)
_NEWEST_SAMPLE = select(service_levels.c.newest_sample).where(*_OF_ONE)
_STORE = BulkInsert(
    service_levels,
    ["environment", "service", "body"],
    "ON CONFLICT (environment, service) DO UPDATE SET body = excluded.body",
)
_ADVANCE = BulkInsert(
    service_levels,
    ["environment", "service", "body", "newest_sample"],
    "ON CONFLICT (environment, service)"
    " DO UPDATE SET body = excluded.body, newest_sample = excluded.newest_sample",
)


class Remembered(msgspec.Struct, gc=False):
    """The record of one service."""

    levels: ServiceLevels | None
    newest_sample: int | None
    """The number of the newest row of its samples."""
    newest_at: int | None
    """When that was observed, in microseconds since 1970; None without one, and after it was forgotten."""
    run: HealthyRun | None = None
    """For healthy samples that follow; None where it has to be made."""


def levels(connection: Connection, key: ServiceKey) -> ServiceLevels | None:
    this = {"environment": key.environment, "service": key.service}
    row = connection.execute(_BODY, this).one_or_none()
    return None if row is None else read(ServiceLevels, row.body)


def newest_sample(connection: Connection, key: ServiceKey) -> int | None:
    """The number of the newest row of a service's samples."""
    this = {"environment": key.environment, "service": key.service}
    return connection.execute(_NEWEST_SAMPLE, this).scalar_one_or_none()


def remembered(connection: Connection, keys: Collection[ServiceKey]) -> dict[ServiceKey, Remembered]:
    """The records of these services, in a transaction that may store them."""
    cached = _cached(connection)
    if cached is None:
        return _stored(connection, keys)
    found, missing = {}, []
    for key in keys:
        one = cached.get(key)
        if one is None:
            missing.append(key)
        else:
            cached.move_to_end(key)
            found[key] = one
    if missing:
        read_now = _stored(connection, missing)
        cached.update(read_now)
        found |= read_now
        _bound(cached)
    return found


def store_levels(connection: Connection, changed: Mapping[ServiceKey, ServiceLevels]) -> None:
    """Write the levels of these services."""
    if not changed:
        return
    _STORE.run(
        connection,
        ([key.environment, key.service, current] for key, current in changed.items()),
    )
    cached = _cached(connection)
    if cached is None:
        return
    for key, current in changed.items():
        one = cached.get(key)
        if one is not None:  # of any other the newest sample is not known
            one.levels, one.run = current, None
            cached.move_to_end(key)


def advance(connection: Connection, taken: Iterable[tuple[ServiceKey, Remembered]]) -> None:
    """Write the levels and the newest samples of these services, which `remembered` gave."""
    _ADVANCE.run(
        connection,
        ([key.environment, key.service, one.levels, one.newest_sample] for key, one in taken),
    )


def end_runs(connection: Connection, keys: Iterable[ServiceKey]) -> None:
    """Signals of these services were recorded that no run knows."""
    cached = _cached(connection)
    if cached:
        for key in keys:
            one = cached.get(key)
            if one is not None:
                one.run = None


def _stored(connection: Connection, keys: Collection[ServiceKey]) -> dict[ServiceKey, Remembered]:
    found = {key: Remembered(None, None, None) for key in keys}
    for row in _LEVELS.services(connection, keys):
        key = ServiceKey(environment=row.environment, service=row.service)
        found[key] = Remembered(read(ServiceLevels, row.body), row.newest_sample, row.observed_at)
    return found


def _cached(connection: Connection) -> OrderedDict[ServiceKey, Remembered] | None:
    """The valid records in memory; None if there is no cache."""
    memory = kept_in_memory(connection)
    if memory is None:
        return None
    found: OrderedDict[ServiceKey, Remembered] = memory.setdefault("levels", OrderedDict())
    return found


def _bound(cached: OrderedDict[ServiceKey, Remembered]) -> None:
    while len(cached) > MOST_CACHED:
        cached.popitem(last=False)
