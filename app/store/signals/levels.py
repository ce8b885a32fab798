"""What intake remembers of each service: its levels, as one bounded row.

On SQLite the newest levels are also kept in memory, beside the one connection that
writes the file. They are dropped when another connection has changed the file (its
`data_version`), and when a transaction of this one fails. On PostgreSQL any
process may change them at any time; they are read in each transaction.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping

from sqlalchemy import Connection, select

from app.agent.ids import ServiceKey
from app.agent.ports.store.signals import ServiceLevels
from app.store.database.codec import read
from app.store.database.sole_writer import kept_in_memory
from app.store.database.tables import service_levels
from app.store.signals.bulk import BulkInsert
from app.store.signals.given import GivenStatement

MOST_CACHED = 50_000
"""Services whose levels are kept in memory, some 30 MB; the one that was used longest ago goes first."""

_LEVELS = GivenStatement(
    "SELECT service_levels.environment, service_levels.service, service_levels.body"
    " FROM {services} CROSS JOIN service_levels"
    " WHERE service_levels.environment = given.environment AND service_levels.service = given.service",
    [service_levels.c.environment, service_levels.c.service, service_levels.c.body],
)
_STORE = BulkInsert(
    service_levels,
    ["environment", "service", "body"],
    "ON CONFLICT (environment, service) DO UPDATE SET body = excluded.body",
)


def levels(connection: Connection, key: ServiceKey) -> ServiceLevels | None:
    row = connection.execute(
        select(service_levels.c.body).where(
            service_levels.c.environment == key.environment, service_levels.c.service == key.service
        )
    ).one_or_none()
    return None if row is None else read(ServiceLevels, row.body)


def levels_of(connection: Connection, keys: Collection[ServiceKey]) -> dict[ServiceKey, ServiceLevels]:
    """The levels of those services that have any, in a transaction that may store them."""
    cached = _cached(connection)
    if cached is None:
        return _stored(connection, keys)
    found, missing = {}, []
    for key in keys:
        if key not in cached:
            missing.append(key)
            continue
        cached.move_to_end(key)
        level = cached[key]
        if level is not None:
            found[key] = level
    if missing:
        read_now = _stored(connection, missing)
        _keep(cached, {key: read_now.get(key) for key in missing})
        found |= read_now
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
    if cached is not None:
        _keep(cached, changed)


def _stored(connection: Connection, keys: Collection[ServiceKey]) -> dict[ServiceKey, ServiceLevels]:
    return {
        ServiceKey(environment=row.environment, service=row.service): read(ServiceLevels, row.body)
        for row in _LEVELS.services(connection, keys)
    }


def _cached(connection: Connection) -> OrderedDict[ServiceKey, ServiceLevels | None] | None:
    """The levels in memory that are valid now, None for a service without any; None where none are kept."""
    memory = kept_in_memory(connection)
    if memory is None:
        return None
    found: OrderedDict[ServiceKey, ServiceLevels | None] = memory.setdefault("levels", OrderedDict())
    return found


def _keep(
    cached: OrderedDict[ServiceKey, ServiceLevels | None], new: Mapping[ServiceKey, ServiceLevels | None]
) -> None:
    for key, level in new.items():
        cached[key] = level
        cached.move_to_end(key)
    while len(cached) > MOST_CACHED:
        cached.popitem(last=False)
