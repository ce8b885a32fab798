"""Known-good and failed revisions, as rows that outlive ReplicaSets and restarts.

A known result is never overwritten by an unknown one: FAILED is replaced only by
another FAILED, and SERVED_WELL against UNKNOWN, which then only moves the time
it was last seen.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

from sqlalchemy import (
    Connection,
    Row,
    Select,
    Table,
    and_,
    bindparam,
    delete,
    insert,
    or_,
    select,
    union,
    update,
)

from app.agent.ids import IncidentId, ServiceKey
from app.agent.models import IncidentState
from app.agent.ports.store.history import KnownService
from app.agent.workload import ConfigRecord, RevisionHealth, RevisionRecord
from app.store.database import locks
from app.store.database.codec import read, storable_text
from app.store.database.repository import Repository, reads, writes
from app.store.database.tables import config_history, incidents, revision_history, service_levels

REVISIONS_SHOWN = 50
CONFIGS_KEPT = 20

_REVISIONS = (
    select(revision_history)
    .where(
        revision_history.c.environment == bindparam("environment"),
        revision_history.c.service == bindparam("service"),
    )
    .order_by(revision_history.c.seen_at.desc(), revision_history.c.number.desc())
    .limit(REVISIONS_SHOWN)
)
_CONFIGS = (
    select(config_history)
    .where(
        config_history.c.environment == bindparam("environment"),
        config_history.c.service == bindparam("service"),
    )
    .order_by(config_history.c.seen_at.desc(), config_history.c.name, config_history.c.content_hash)
)

Remembered = TypeVar("Remembered", RevisionRecord, ConfigRecord)

_RANK = {RevisionHealth.UNKNOWN: 0, RevisionHealth.SERVED_WELL: 1, RevisionHealth.FAILED: 2}


def learned(stored: Remembered, new: Remembered) -> Remembered:
    """The known facts after `new`, given `stored` for the same content. Pure."""
    if _RANK[new.health] > _RANK[stored.health]:
        return replace(new, seen_at=max(stored.seen_at, new.seen_at))
    if new.seen_at < stored.seen_at:
        return stored
    if new.health is stored.health:
        return new
    if stored.health is RevisionHealth.FAILED:
        return stored
    seen_again = replace(new, health=stored.health)
    if isinstance(seen_again, RevisionRecord) and isinstance(stored, RevisionRecord):
        return replace(seen_again, reason=stored.reason)
    return seen_again


class SqlHistory(Repository):
    """`HistoryRepository` over SQL."""

    @writes
    def record_revision(self, connection: Connection, record: RevisionRecord) -> None:
        locks.hold(connection, locks.Space.HISTORY, [str(record.key)])
        here = (*_of(revision_history, record.key), revision_history.c.template_hash == record.template_hash)
        row = connection.execute(select(revision_history).where(*here)).one_or_none()
        known = record if row is None else learned(_revision(row), record)
        values: dict[str, object] = {
            "number": known.number,
            "health": known.health.value,
            "seen_at": known.seen_at,
            "reason": storable_text(known.reason),
        }
        if row is not None:
            connection.execute(update(revision_history).where(*here).values(**values))
            return
        connection.execute(
            insert(revision_history).values(
                environment=record.key.environment,
                service=record.key.service,
                template_hash=record.template_hash,
                **values,
            )
        )

    @reads
    def revisions(self, connection: Connection, key: ServiceKey) -> tuple[RevisionRecord, ...]:
        rows = connection.execute(_REVISIONS, {"environment": key.environment, "service": key.service})
        return tuple(_revision(row) for row in rows)

    @writes
    def record_config(self, connection: Connection, record: ConfigRecord) -> None:
        locks.hold(connection, locks.Space.HISTORY, [str(record.key)])
        here = (
            *_of(config_history, record.key),
            config_history.c.name == record.name,
            config_history.c.content_hash == record.content_hash,
        )
        row = connection.execute(select(config_history).where(*here)).one_or_none()
        known = record if row is None else learned(_config(row), record)
        values: dict[str, object] = {"health": known.health.value, "seen_at": known.seen_at}
        if row is not None:
            connection.execute(update(config_history).where(*here).values(**values))
            return
        connection.execute(
            insert(config_history).values(
                environment=record.key.environment,
                service=record.key.service,
                name=record.name,
                content_hash=record.content_hash,
                data=dict(record.data),
                **values,
            )
        )
        _forget_oldest(connection, record.key, record.name)

    @reads
    def configs(self, connection: Connection, key: ServiceKey) -> tuple[ConfigRecord, ...]:
        rows = connection.execute(_CONFIGS, {"environment": key.environment, "service": key.service})
        return tuple(_config(row) for row in rows)

    @reads
    def services(
        self,
        connection: Connection,
        *,
        environment: str | None,
        text: str,
        after: ServiceKey | None,
        limit: int,
    ) -> tuple[KnownService, ...]:
        """Services with levels, or with a revision on record; the newest incident of each by index."""
        parts = (
            _named(table, environment=environment, text=text, after=after).limit(limit).subquery()
            for table in (service_levels, revision_history)
        )
        known = union(*(part.select() for part in parts)).subquery()
        one = incidents.alias()
        newest = (
            select(one.c.id)
            .where(one.c.service == known.c.service, one.c.environment == known.c.environment)
            .order_by(one.c.opened_at.desc(), one.c.id.desc())
            .limit(1)
            .scalar_subquery()
        )
        wanted: Select[Any] = (
            select(
                known.c.environment,
                known.c.service,
                incidents.c.id,
                incidents.c.state,
                incidents.c.opened_at,
            )
            .select_from(known.outerjoin(incidents, incidents.c.id == newest))
            .order_by(known.c.environment, known.c.service)
            .limit(limit)
        )
        rows = connection.execute(wanted)
        return tuple(
            KnownService(
                key=_key(row),
                incident_id=None if row.id is None else IncidentId(row.id),
                state=None if row.state is None else IncidentState(row.state),
                opened_at=row.opened_at,
            )
            for row in rows
        )


def _named(table: Table, *, environment: str | None, text: str, after: ServiceKey | None) -> Select[Any]:
    """The services of one table, in order."""
    columns = table.c
    wanted = select(columns.environment, columns.service).distinct()
    if environment is not None:
        wanted = wanted.where(columns.environment == environment)
    if text:
        wanted = wanted.where(columns.service.contains(text, autoescape=True))
    if after is not None:
        same = and_(columns.environment == after.environment, columns.service > after.service)
        wanted = wanted.where(or_(columns.environment > after.environment, same))
    return wanted.order_by(columns.environment, columns.service)


def _forget_oldest(connection: Connection, key: ServiceKey, name: str) -> None:
    """Keep the newest versions of a ConfigMap, among them always the newest known-good one."""
    here = (*_of(config_history, key), config_history.c.name == name)
    rows = connection.execute(
        select(config_history.c.content_hash, config_history.c.health)
        .where(*here)
        .order_by(config_history.c.seen_at.desc(), config_history.c.content_hash)
    ).all()
    served_well = next((row for row in rows if row.health == RevisionHealth.SERVED_WELL.value), None)
    ranked = rows if served_well is None else [served_well, *(row for row in rows if row is not served_well)]
    victims = [row.content_hash for row in ranked[CONFIGS_KEPT:]]
    if victims:
        connection.execute(delete(config_history).where(*here, config_history.c.content_hash.in_(victims)))


def _of(table: Table, key: ServiceKey) -> tuple[Any, Any]:
    return table.c.environment == key.environment, table.c.service == key.service


def _key(row: Row[Any]) -> ServiceKey:
    return ServiceKey(environment=row.environment, service=row.service)


def _revision(row: Row[Any]) -> RevisionRecord:
    return RevisionRecord(
        key=_key(row),
        template_hash=row.template_hash,
        number=row.number,
        health=RevisionHealth(row.health),
        seen_at=row.seen_at,
        reason=row.reason,
    )


def _config(row: Row[Any]) -> ConfigRecord:
    return ConfigRecord(
        key=_key(row),
        name=row.name,
        content_hash=row.content_hash,
        data=read(dict[str, str], row.data),
        health=RevisionHealth(row.health),
        seen_at=row.seen_at,
    )
