"""The repository of incidents: reading, listing and saving."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from sqlalchemy import Connection, bindparam, func, select
from sqlalchemy.sql import ColumnElement

from app.agent.audit.anchoring import Head
from app.agent.ids import IncidentId, ServiceKey
from app.agent.models import Incident, IncidentRecord, IncidentState, Note, TimelineEntry
from app.agent.ports.store.claims import Claim
from app.agent.ports.store.incidents import IncidentFilter, OpenBeside, Page, RecordPart
from app.store import notifications, timeline
from app.store.database.repository import Repository, reads, reads_urgently, writes
from app.store.database.rows import incident_columns, incident_of, page_of
from app.store.database.tables import incidents
from app.store.database.tables import timeline as entries
from app.store.incidents.records import intents_of, record_of, records_of
from app.store.incidents.saving import CHANGE, save_next_version

SEARCHED_AT_ONCE = 25_000
"""Incidents in which one call looks for a text: no index helps to find a part of a word."""
_NEWEST_LOOKED_AT = 500
_ONE = select(incidents).where(incidents.c.id == bindparam("incident"))
_OPEN = (
    select(incidents).where(incidents.c.closed_at.is_(None)).order_by(incidents.c.opened_at, incidents.c.id)
)
_OPEN_OF_SERVICE = _OPEN.where(incidents.c.service == bindparam("service"))
_OPEN_OF_KEY = _OPEN_OF_SERVICE.where(incidents.c.environment == bindparam("environment"))
_OPEN_ID_OF_KEY = select(incidents.c.id).where(
    incidents.c.environment == bindparam("environment"),
    incidents.c.service == bindparam("service"),
    incidents.c.closed_at.is_(None),
)


class SqlIncidents(Repository):
    """`IncidentRepository` over SQL."""

    @reads
    def get(self, connection: Connection, incident_id: IncidentId) -> IncidentRecord | None:
        row = connection.execute(_ONE, {"incident": incident_id}).one_or_none()
        return None if row is None else record_of(connection, row, timeline.entries(connection, incident_id))

    async def get_part(
        self, incident_id: IncidentId, *, limit: int, after: int | None = None, urgent: bool = False
    ) -> RecordPart | None:
        def work(connection: Connection) -> RecordPart | None:
            row = connection.execute(_ONE, {"incident": incident_id}).one_or_none()
            if row is None:
                return None
            begin = row.timeline_length - 1 - limit if after is None else after
            entries = timeline.entries(connection, incident_id, after=begin, limit=limit)
            return RecordPart(record=record_of(connection, row, entries), length=row.timeline_length)

        return await self.database.read(work, urgent=urgent)

    @reads_urgently
    def get_newest_parts(
        self, connection: Connection, incident_ids: Collection[IncidentId], *, limit: int
    ) -> Mapping[IncidentId, RecordPart]:
        """Four statements, regardless of the number of incidents."""
        rows = connection.execute(select(incidents).where(incidents.c.id.in_(incident_ids))).all()
        newest = timeline.newest_of_each(connection, incident_ids, limit)
        records = records_of(connection, rows, newest)
        return {
            record.incident.id: RecordPart(record=record, length=row.timeline_length)
            for row, record in zip(rows, records, strict=True)
        }

    @reads
    def timeline(self, connection: Connection, incident_id: IncidentId) -> tuple[TimelineEntry, ...]:
        return timeline.entries(connection, incident_id)

    @reads
    def timeline_heads(
        self, connection: Connection, *, after: IncidentId | None, limit: int
    ) -> tuple[tuple[IncidentId, Head], ...]:
        wanted = select(incidents.c.id, incidents.c.timeline_length, incidents.c.timeline_head)
        if after is not None:
            wanted = wanted.where(incidents.c.id > after)
        rows = connection.execute(wanted.order_by(incidents.c.id).limit(limit))
        return tuple(
            (IncidentId(row.id), Head(length=row.timeline_length, hash=row.timeline_head)) for row in rows
        )

    @reads
    def find(
        self,
        connection: Connection,
        where: IncidentFilter,
        *,
        limit: int,
        cursor: str | None,
        intents: bool = True,
    ) -> Page:
        """Without timelines; the intents of a page come in one query. A search continues with the cursor."""
        wanted = select(incidents).where(*_conditions(where))
        rows, following = page_of(
            connection,
            wanted,
            incidents.c.opened_at,
            incidents.c.id,
            limit=limit,
            cursor=cursor,
            oldest_first=where.oldest_first,
            within=SEARCHED_AT_ONCE if where.text else None,
        )
        by_incident = intents_of(connection, [row.id for row in rows]) if intents else {}
        return Page(
            items=tuple(
                IncidentRecord(incident=incident, intents=by_incident.get(incident.id, ()), timeline=())
                for incident in map(incident_of, rows)
            ),
            next_cursor=following,
        )

    @reads
    def all_open(self, connection: Connection) -> tuple[Incident, ...]:
        return tuple(map(incident_of, connection.execute(_OPEN)))

    @reads
    def open_of_service(
        self, connection: Connection, service: str, environment: str | None
    ) -> tuple[Incident, ...]:
        """The index over service names finds them."""
        if environment is None:
            rows = connection.execute(_OPEN_OF_SERVICE, {"service": service})
        else:
            rows = connection.execute(_OPEN_OF_KEY, {"service": service, "environment": environment})
        return tuple(map(incident_of, rows))

    @reads
    def open_beside(
        self, connection: Connection, key: ServiceKey, named: Sequence[ServiceKey], limit: int
    ) -> OpenBeside:
        """The cost grows neither with the number of `named` nor with the number of open incidents."""
        found = {each for each in named if each != key and _is_open(connection, each)}
        # The newest incidents by the index over opening times; ended ones are skipped.
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

    @reads
    def changed_since(self, connection: Connection, moment: datetime) -> tuple[tuple[IncidentId, int], ...]:
        """The index over the times of entries finds them."""
        newest = func.max(entries.c.sequence).label("newest")
        rows = connection.execute(
            select(entries.c.incident_id, newest)
            .where(entries.c.at >= moment)
            .group_by(entries.c.incident_id)
            .order_by(func.max(entries.c.at).desc())
            .limit(_NEWEST_LOOKED_AT)
        )
        return tuple((IncidentId(row.incident_id), row.newest) for row in rows)

    @writes
    def save(
        self, connection: Connection, claim: Claim, incident: Incident, notes: Sequence[Note]
    ) -> Incident:
        return save_next_version(connection, claim, incident, notes)

    @writes
    def recover(self, connection: Connection, incident: Incident, note: Note) -> bool:
        row = connection.execute(_ONE.with_for_update(), {"incident": incident.id}).one_or_none()
        if row is None or _is_open(connection, incident.key):
            return False
        stored = incident_of(row)
        if stored.state is not IncidentState.ESCALATED or stored.version != incident.version:
            return False
        # People own the rest, and may have changed it since.
        after = replace(
            stored,
            state=incident.state,
            recovered_at=incident.recovered_at,
            resolved=None,
            summary=incident.summary,
        )
        changed = {"version": stored.version + 1, **incident_columns(after)}
        connection.execute(CHANGE, {"incident": incident.id, **changed})
        timeline.append(connection, incident.id, [note])
        notifications.look_again(connection, after)
        return True


def _is_open(connection: Connection, key: ServiceKey) -> bool:
    this = {"environment": key.environment, "service": key.service}
    return connection.execute(_OPEN_ID_OF_KEY, this).first() is not None


def _conditions(where: IncidentFilter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if where.service is not None:
        conditions.append(incidents.c.service == where.service)
    if where.environment is not None:
        conditions.append(incidents.c.environment == where.environment)
    if where.states:
        conditions.append(incidents.c.state.in_([state.value for state in where.states]))
    if where.since is not None:
        conditions.append(incidents.c.opened_at >= where.since)
    if where.until is not None:
        conditions.append(incidents.c.opened_at < where.until)
    named = incidents.c.service + " " + incidents.c.environment + " " + incidents.c.id
    # Rows of an older program have no search text.
    searched = func.coalesce(incidents.c.search, named)
    words = where.text.lower().split()
    return [*conditions, *(searched.contains(word, autoescape=True) for word in words)]
