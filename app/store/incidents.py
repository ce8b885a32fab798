"""Incidents as rows: reading, listing, and what intake and the loop change in them.

Two writers share an incident: intake, which adds triggers and freshness when a
signal joins, and the loop, which owns everything else under its claim. Joining
does not raise the version, so it never costs a running pass its work; saving
merges instead: triggers are the union in stored order, `stale` holds only while
both say so, `dry_run` never goes back from true to false, and a sender that reported stays
on record.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Row, and_, func, insert, or_, select, update
from sqlalchemy.sql import ColumnElement

from app.agent.identity.people import same_person
from app.agent.ids import IncidentId, ServiceKey
from app.agent.models import (
    Alert,
    ApprovalState,
    Incident,
    IncidentRecord,
    IncidentState,
    Signal,
    Trigger,
)
from app.agent.ports.store import (
    ApprovalPage,
    ApprovalRecord,
    IncidentFilter,
    OpenBeside,
    Page,
    RecordPart,
)
from app.agent.timeline import chain_start
from app.errors import ClaimLost, Invalid
from app.store import approvals, intents
from app.store import timeline as journal
from app.store.database.codec import (
    IncidentBody,
    incident_body,
    read,
    writable,
)
from app.store.database.notify import ring
from app.store.database.tables import (
    AFTER_KNOWN,
    AT_ONCE,
    incidents,
    revision_history,
)
from app.store.notes import opening_summary

_NEWEST_LOOKED_AT = 500
_RECOVERIES = (IncidentState.RECOVERED, IncidentState.RECOVERED_WITHOUT_ACTION)


def incident_of(row: Row[Any]) -> Incident:
    body = read(IncidentBody, row.body)
    return Incident(
        id=IncidentId(row.id),
        key=ServiceKey(environment=row.environment, service=row.service),
        state=IncidentState(row.state),
        opened_at=row.opened_at,
        triggers=tuple(Trigger(trigger) for trigger in row.triggers),
        stale=row.stale,
        dry_run=row.dry_run,
        version=row.version,
        closed_at=row.closed_at,
        diagnosis=body.diagnosis,
        plan=body.plan,
        next_action=body.next_action,
        verification=body.verification,
        verdict=body.verdict,
        lesson=body.lesson,
        failing_since=body.failing_since,
        without_reason_since=body.without_reason_since,
        joined=row.joined,
        wake_at=row.wake_at,
        summary=body.summary,
        requested_by=body.requested_by,
        also_requested_by=body.also_requested_by,
        reported_by=body.reported_by,
        cluster=body.cluster,
    )


# ---------------------------------------------------------------- reading


def load(connection: Connection, incident_id: IncidentId) -> IncidentRecord | None:
    row = connection.execute(select(incidents).where(incidents.c.id == incident_id)).one_or_none()
    if row is None:
        return None
    return IncidentRecord(
        incident=incident_of(row),
        intents=intents.of_incidents(connection, [incident_id]).get(incident_id, ()),
        timeline=journal.entries(connection, incident_id),
        approvals=approvals.of_incident(connection, incident_id),
        timeline_length=row.timeline_length,
        timeline_head=row.timeline_head,
    )


def load_part(
    connection: Connection, incident_id: IncidentId, limit: int, after: int | None
) -> RecordPart | None:
    row = connection.execute(select(incidents).where(incidents.c.id == incident_id)).one_or_none()
    if row is None:
        return None
    begin = row.timeline_length - 1 - limit if after is None else after
    return RecordPart(
        record=IncidentRecord(
            incident=incident_of(row),
            intents=intents.of_incidents(connection, [incident_id]).get(incident_id, ()),
            timeline=journal.part(connection, incident_id, limit, begin),
            approvals=approvals.of_incident(connection, incident_id),
            timeline_length=row.timeline_length,
            timeline_head=row.timeline_head,
        ),
        length=row.timeline_length,
    )


def open_incidents(connection: Connection) -> tuple[Incident, ...]:
    rows = connection.execute(
        select(incidents)
        .where(incidents.c.closed_at.is_(None))
        .order_by(incidents.c.opened_at, incidents.c.id)
    )
    return tuple(incident_of(row) for row in rows)


def open_of_service(connection: Connection, service: str, environment: str | None) -> tuple[Incident, ...]:
    """Oldest first; the index over service names finds them."""
    wanted = select(incidents).where(incidents.c.service == service, incidents.c.closed_at.is_(None))
    if environment is not None:
        wanted = wanted.where(incidents.c.environment == environment)
    rows = connection.execute(wanted.order_by(incidents.c.opened_at, incidents.c.id))
    return tuple(incident_of(row) for row in rows)


def open_beside(
    connection: Connection, key: ServiceKey, named: Sequence[ServiceKey], limit: int
) -> OpenBeside:
    """Which of `named` have an open incident, and the newest others; the cost grows with neither's number."""
    found = {each for each in named if each != key and _is_open(connection, each)}
    # The newest incidents by the index over opening times; those that ended are passed over.
    newest = (
        select(incidents.c.environment, incidents.c.service, incidents.c.closed_at)
        .order_by(incidents.c.opened_at.desc(), incidents.c.id.desc())
        .limit(_NEWEST_LOOKED_AT)
        .subquery()
    )
    rows = connection.execute(
        select(newest.c.environment, newest.c.service)
        .where(newest.c.closed_at.is_(None))
        .limit(limit + len(named) + 1)
    )
    others = [ServiceKey(environment=row.environment, service=row.service) for row in rows]
    return OpenBeside(
        named=tuple(sorted(found)),
        others=tuple(other for other in others if other != key and other not in named)[:limit],
    )


def _is_open(connection: Connection, key: ServiceKey) -> bool:
    return (
        connection.execute(
            select(incidents.c.id).where(
                incidents.c.environment == key.environment,
                incidents.c.service == key.service,
                incidents.c.closed_at.is_(None),
            )
        ).first()
        is not None
    )


def find(connection: Connection, where: IncidentFilter, limit: int, cursor: str | None) -> Page:
    """One page, newest first, without timelines; the intents of a page come in one query.

    The cursor is the id of the last incident of the page before: incidents are
    kept for good, so a cursor never loses its place, whatever opens or closes
    meanwhile.
    """
    if limit < 1:
        raise Invalid(f"limit is {limit}; it must be at least 1")
    conditions = _conditions(where)
    if cursor is not None:
        conditions.append(_after(connection, cursor))
    rows = connection.execute(
        select(incidents)
        .where(and_(True, *conditions))
        .order_by(incidents.c.opened_at.desc(), incidents.c.id.desc())
        .limit(limit + 1)
    ).all()
    page = [incident_of(row) for row in rows[:limit]]
    by_incident = intents.of_incidents(connection, [incident.id for incident in page])
    return Page(
        items=tuple(
            IncidentRecord(incident=incident, intents=by_incident.get(incident.id, ()), timeline=())
            for incident in page
        ),
        next_cursor=page[-1].id if len(rows) > limit else None,
    )


def find_approvals(
    connection: Connection, state: ApprovalState | None, limit: int, cursor: str | None
) -> ApprovalPage:
    """One page of approvals, newest first, each with its incident; the incidents come in one query."""
    if limit < 1:
        raise Invalid(f"limit is {limit}; it must be at least 1")
    found = approvals.page(connection, state, limit + 1, cursor)
    page = found[:limit]
    asked = {approval.incident_id for approval in page}
    rows = connection.execute(select(incidents).where(incidents.c.id.in_(asked)))
    known = {incident.id: incident for incident in map(incident_of, rows)}
    return ApprovalPage(
        items=tuple(
            ApprovalRecord(approval=approval, incident=known[approval.incident_id]) for approval in page
        ),
        next_cursor=page[-1].id if len(found) > limit else None,
    )


def _conditions(where: IncidentFilter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if where.service is not None:
        conditions.append(incidents.c.service == where.service)
    if where.environment is not None:
        conditions.append(incidents.c.environment == where.environment)
    if where.state is not None:
        conditions.append(incidents.c.state == where.state.value)
    if where.since is not None:
        conditions.append(incidents.c.opened_at >= where.since)
    if where.until is not None:
        conditions.append(incidents.c.opened_at < where.until)
    return conditions


def _after(connection: Connection, cursor: str) -> ColumnElement[bool]:
    last = connection.execute(
        select(incidents.c.opened_at, incidents.c.id).where(incidents.c.id == cursor)
    ).one_or_none()
    if last is None:
        raise Invalid("cursor was not returned by this list; start again without a cursor")
    return or_(
        incidents.c.opened_at < last.opened_at,
        and_(incidents.c.opened_at == last.opened_at, incidents.c.id < last.id),
    )


# ---------------------------------------------------------------- intake's side


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
    """Whether the agent has seen the service serve in its own cluster."""
    seen = select(revision_history.c.number).where(
        revision_history.c.environment == key.environment, revision_history.c.service == key.service
    )
    return connection.execute(seen.limit(1)).first() is not None


def create(connection: Connection, incident: Incident, *, unknown_to: str | None = None) -> None:
    """Store a new incident with an empty timeline.

    `unknown_to` is its sender where the agent does not know the service itself: its
    first pass then comes after those of known services.
    """
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
            **_mutable(incident),
        )
    )
    ring(connection)


def add_triggers(incident: Incident, triggers: Sequence[Trigger], *, fresh: bool) -> Incident:
    """What a joining signal adds; a fresh one with a trigger ends the incident's staleness."""
    if not triggers:
        return incident
    merged = _union(incident.triggers, triggers)
    joined = replace(incident, joined=incident.joined + 1, stale=incident.stale and not fresh)
    return joined if merged == incident.triggers else _with_triggers(joined, merged)


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
        values |= _mutable(after)
    connection.execute(update(incidents).where(incidents.c.id == after.id).values(**values))


# ---------------------------------------------------------------- the loop's side


def store_next_version(connection: Connection, stored: Incident, given: Incident) -> Incident:
    """Replace `stored` by `given`, merged with what intake added; the caller holds the row and the claim."""
    if given.key != stored.key or given.opened_at != stored.opened_at:
        raise Invalid(f"incident {stored.id} cannot move to another service or time of opening")
    if given.state.closed != (given.closed_at is not None):
        raise Invalid(f"incident {stored.id} must have closed_at exactly when its state is an end")
    if given.state in _RECOVERIES and given.joined != stored.joined:
        raise ClaimLost(f"a signal joined incident {stored.id} since it was loaded; reload it")
    merged = replace(
        given,
        joined=stored.joined,
        version=stored.version + 1,
        stale=stored.stale and given.stale,
        dry_run=stored.dry_run or given.dry_run,
        reported_by=tuple(dict.fromkeys((*stored.reported_by, *given.reported_by))),
        cluster=stored.cluster or given.cluster,
    )
    merged = _with_triggers(merged, _union(stored.triggers, given.triggers))
    connection.execute(
        update(incidents)
        .where(incidents.c.id == stored.id)
        .values(version=merged.version, **_mutable(merged))
    )
    return merged


def _mutable(incident: Incident) -> dict[str, object]:
    return {
        "state": incident.state.value,
        "closed_at": incident.closed_at,
        "wake_at": incident.wake_at,
        "stale": incident.stale,
        "dry_run": incident.dry_run,
        "triggers": list(incident.triggers),
        "body": writable(IncidentBody, incident_body(incident)),
    }


def _with_triggers(incident: Incident, triggers: tuple[Trigger, ...]) -> Incident:
    """The incident with these triggers; a summary that still only names the triggers names the new ones."""
    untouched = incident.summary == opening_summary(incident.key, incident.triggers)
    summary = opening_summary(incident.key, triggers) if untouched else incident.summary
    return replace(incident, triggers=triggers, summary=summary)


def _union(first: Sequence[Trigger], then: Sequence[Trigger]) -> tuple[Trigger, ...]:
    return tuple(dict.fromkeys((*first, *then)))
