"""What intake remembers of each service: its levels, as one bounded row."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, bindparam, insert, select, update

from app.agent.ids import ServiceKey
from app.agent.ports.store.signals import ServiceLevels
from app.store.database.codec import read
from app.store.database.tables import service_levels

_INSERT_LEVELS = insert(service_levels).values(
    environment=bindparam("of_environment"), service=bindparam("of_service"), body=bindparam("body")
)
_UPDATE_LEVELS = (
    update(service_levels)
    .where(
        service_levels.c.environment == bindparam("of_environment"),
        service_levels.c.service == bindparam("of_service"),
    )
    .values(body=bindparam("body"))
)


def levels(connection: Connection, key: ServiceKey) -> ServiceLevels | None:
    row = connection.execute(
        select(service_levels.c.body).where(
            service_levels.c.environment == key.environment, service_levels.c.service == key.service
        )
    ).one_or_none()
    return None if row is None else read(ServiceLevels, row.body)


def store_levels(
    connection: Connection,
    services: Mapping[ServiceKey, tuple[ServiceLevels | None, ServiceLevels | None]],
) -> None:
    """Write what differs from what is on record; each service has its stored and its current levels."""
    changed = [
        {"of_environment": key.environment, "of_service": key.service, "body": current}
        for key, (stored, current) in services.items()
        if current is not None and current is not stored
    ]
    known = {(key.environment, key.service) for key, (stored, _) in services.items() if stored is not None}
    rows = [row for row in changed if (row["of_environment"], row["of_service"]) in known]
    new_rows = [row for row in changed if (row["of_environment"], row["of_service"]) not in known]
    if rows:
        connection.execute(_UPDATE_LEVELS, rows)
    if new_rows:
        connection.execute(_INSERT_LEVELS, new_rows)
