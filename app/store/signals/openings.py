"""Changes of incidents by intake: opening an incident, and adding a joining signal.

Joining does not raise the version, so it never invalidates a running pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from uuid import uuid4

from sqlalchemy import Connection, func, select

from app.agent.freshness.clock_jumps import ahead
from app.agent.identity.people import same_person
from app.agent.ids import IncidentId, ServiceKey
from app.agent.models import Alert, Incident, IncidentState, Signal, Trigger
from app.store.database.tables import incidents
from app.store.incidents.saving import union, with_triggers
from app.store.notes import opening_summary


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


def new_incident(
    key: ServiceKey, triggers: Sequence[Trigger], *, stale: bool, dry_run: bool, at: datetime
) -> Incident:
    """An incident in the state OPEN."""
    distinct = tuple(dict.fromkeys(triggers))
    return Incident(
        id=IncidentId(f"inc_{uuid4().hex}"),
        key=key,
        state=IncidentState.OPEN,
        opened_at=at,
        triggers=distinct,
        stale=stale,
        dry_run=dry_run,
        summary=opening_summary(key, distinct),
    )


def not_before(closed: Incident | None, at: datetime) -> datetime:
    """A service's incidents never overlap, though a signal may have waited while the last one closed.

    An end in the future, from before the clock went back, dates nothing.
    """
    if closed is None or closed.closed_at is None or ahead(closed.closed_at, at):
        return at
    return max(at, closed.closed_at)


def add_triggers(incident: Incident, triggers: Sequence[Trigger], *, fresh: bool) -> Incident:
    """The data that a joining signal adds; a fresh signal with a trigger ends the incident's staleness."""
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
