"""Incidents as intake changes them: opening one, and what a joining signal adds.

Joining does not raise the version, so it never invalidates a running pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from uuid import uuid4

from sqlalchemy import Connection, func, insert, select, update

from app.agent.identity.people import same_person
from app.agent.ids import IncidentId, ServiceKey
from app.agent.models import Alert, Incident, IncidentState, Signal, Trigger
from app.agent.timeline import chain_start
from app.store.database.notify import ring
from app.store.database.rows import incident_columns, incident_of
from app.store.database.tables import AFTER_KNOWN, AT_ONCE, incidents, revision_history
from app.store.incidents import union, with_triggers
from app.store.notes import opening_summary


def open_incident(connection: Connection, key: ServiceKey) -> Incident | None:
    """The one open incident of a service, its row locked for the rest of the transaction."""
    row = connection.execute(
        select(incidents)
        .where(
            incidents.c.environment == key.environment,
            incidents.c.service == key.service,
            incidents.c.closed_at.is_(None),
        )
        .with_for_update()
    ).one_or_none()
    return None if row is None else incident_of(row)


def last_closed(connection: Connection, key: ServiceKey) -> Incident | None:
    """The service's incident that ended last."""
    row = connection.execute(
        select(incidents)
        .where(
            incidents.c.environment == key.environment,
            incidents.c.service == key.service,
            incidents.c.closed_at.is_not(None),
        )
        .order_by(incidents.c.closed_at.desc(), incidents.c.id.desc())
        .limit(1)
    ).one_or_none()
    return None if row is None else incident_of(row)


def open_of_sender(connection: Connection, sender: str, limit: int) -> int:
    """How many incidents of unknown services a sender has open; counted up to `limit`."""
    some = (
        select(incidents.c.id)
        .where(incidents.c.sender == sender, incidents.c.closed_at.is_(None))
        .limit(limit)
        .subquery()
    )
    return int(connection.execute(select(func.count()).select_from(some)).scalar_one())


def newest_of_sender(connection: Connection, sender: str) -> IncidentId | None:
    """The open incident of a sender that was opened last."""
    found = connection.execute(
        select(incidents.c.id)
        .where(incidents.c.sender == sender, incidents.c.closed_at.is_(None))
        .order_by(incidents.c.opened_at.desc(), incidents.c.id)
        .limit(1)
    ).scalar_one_or_none()
    return None if found is None else IncidentId(found)


def is_known(connection: Connection, key: ServiceKey) -> bool:
    """Whether the agent has observed the service in its own cluster."""
    seen = select(revision_history.c.number).where(
        revision_history.c.environment == key.environment, revision_history.c.service == key.service
    )
    return connection.execute(seen.limit(1)).first() is not None


def open_new(
    connection: Connection,
    key: ServiceKey,
    triggers: Sequence[Trigger],
    *,
    stale: bool,
    dry_run: bool,
    at: datetime,
    unknown_to: str | None = None,
) -> Incident:
    """Store a new incident in the state OPEN with an empty timeline.

    `unknown_to` is its sender where the agent does not know the service itself: its
    first pass then comes after those of known services.
    """
    distinct = tuple(dict.fromkeys(triggers))
    incident = Incident(
        id=IncidentId(f"inc_{uuid4().hex}"),
        key=key,
        state=IncidentState.OPEN,
        opened_at=at,
        triggers=distinct,
        stale=stale,
        dry_run=dry_run,
        summary=opening_summary(key, distinct),
    )
    _create(connection, incident, unknown_to)
    return incident


def not_before(closed: Incident | None, at: datetime) -> datetime:
    """A service's incidents never overlap, though a signal may have waited while the last one closed."""
    return at if closed is None or closed.closed_at is None else max(at, closed.closed_at)


def _create(connection: Connection, incident: Incident, unknown_to: str | None) -> None:
    connection.execute(
        insert(incidents).values(
            id=incident.id,
            environment=incident.key.environment,
            service=incident.key.service,
            opened_at=incident.opened_at,
            version=incident.version,
            timeline_length=0,
            timeline_head=chain_start(incident.id),
            due_at=AT_ONCE if unknown_to is None else AFTER_KNOWN,
            sender=unknown_to,
            joined=incident.joined,
            **incident_columns(incident),
        )
    )
    ring(connection)


def add_triggers(incident: Incident, triggers: Sequence[Trigger], *, fresh: bool) -> Incident:
    """What a joining signal adds; a fresh one with a trigger ends the incident's staleness."""
    if not triggers:
        return incident
    merged = union(incident.triggers, triggers)
    joined = replace(incident, joined=incident.joined + 1, stale=incident.stale and not fresh)
    return joined if merged == incident.triggers else with_triggers(joined, merged)


def note_origin(incident: Incident, signals: Sequence[Signal]) -> Incident:
    """Remember who sent signals of an incident, and which cluster its alerts named first."""
    reported_by, cluster = incident.reported_by, incident.cluster
    for signal in signals:
        person = signal.sender.person if signal.sender is not None else None
        if person is not None and not any(same_person(person, known) for known in reported_by):
            reported_by = (*reported_by, person)
        if isinstance(signal.payload, Alert):
            cluster = cluster or signal.payload.cluster
    if (reported_by, cluster) == (incident.reported_by, incident.cluster):
        return incident
    return replace(incident, reported_by=reported_by, cluster=cluster)


def store_joined(connection: Connection, before: Incident, after: Incident) -> None:
    """Write what signals added since `before`; the caller holds the lock on the incident's row."""
    if after == before:
        return
    values: dict[str, object] = {"joined": after.joined}
    if replace(after, joined=before.joined) != before:
        values |= incident_columns(after)
    connection.execute(update(incidents).where(incidents.c.id == after.id).values(**values))
