"""Incidents as rows with their timelines: reading, listing, and what the loop saves.

Three writers share an incident: intake (`app.store.signals.openings`), which adds triggers and freshness
when a signal joins; people (`app.store.responders`), who set the owner and similar fields; and the loop,
which owns everything else under its claim. Saving merges: triggers are the union in stored order, `stale`
holds only while both say so, `dry_run` never goes back from true to false, and a sender that reported stays
on record.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import Connection, Row, Select, bindparam, func, select, update
from sqlalchemy.sql import ColumnElement

from app.agent.audit.anchoring import Head
from app.agent.ids import IncidentId, ServiceKey
from app.agent.models import (
    Approval,
    ApprovalState,
    Incident,
    IncidentRecord,
    IncidentState,
    Intent,
    Note,
    TimelineEntry,
    Trigger,
    VerdictKind,
)
from app.agent.ports.store.claims import Claim
from app.agent.ports.store.incidents import IncidentFilter, OpenBeside, Page, RecordPart
from app.errors import ClaimLost, Invalid
from app.store import claims, notifications, timeline
from app.store.database.repository import Repository, reads, reads_urgently, writes
from app.store.database.rows import approval_of, incident_columns, incident_of, intent_of, page_of
from app.store.database.tables import approvals, incidents, intents
from app.store.database.tables import timeline as entries
from app.store.notes import opening_summary

SEARCHED_AT_ONCE = 25_000
"""Incidents in which one call looks for a text: no index helps to find a part of a word."""
_NEWEST_LOOKED_AT = 500
Part = TypeVar("Part", Intent, Approval)
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
_CHANGE = update(incidents).where(incidents.c.id == bindparam("incident"))
_INTENTS = select(intents).order_by(intents.c.sequence)
_INTENTS_OF_ONE = _INTENTS.where(intents.c.incident_id == bindparam("incident"))
_INTENTS_OF_SEVERAL = _INTENTS.where(intents.c.incident_id.in_(bindparam("incidents", expanding=True)))
_APPROVALS = select(approvals).order_by(approvals.c.requested_at, approvals.c.id)
_APPROVALS_OF_ONE = _APPROVALS.where(approvals.c.incident_id == bindparam("incident"))
_APPROVALS_OF_SEVERAL = _APPROVALS.where(approvals.c.incident_id.in_(bindparam("incidents", expanding=True)))
_RECOVERIES = (IncidentState.RECOVERED, IncidentState.RECOVERED_WITHOUT_ACTION)


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
        records = _records_of(connection, rows, newest)
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
        by_incident = _intents_of(connection, [row.id for row in rows]) if intents else {}
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
        connection.execute(_CHANGE, {"incident": incident.id, **changed})
        timeline.append(connection, incident.id, [note])
        notifications.look_again(connection, after)
        return True


# ---------------------------------------------------------------- in the transactions of others


def save_next_version(
    connection: Connection, claim: Claim, incident: Incident, notes: Sequence[Note]
) -> Incident:
    """The incident's next version with its notes; ends the approvals of a state that it leaves."""
    stored = claims.hold(connection, claim)
    if incident.id != stored.id or incident.version != stored.version:
        raise ClaimLost(f"incident {stored.id} is now at version {stored.version}; reload it")
    saved = _store_next_version(connection, stored, incident)
    if stored.state is IncidentState.AWAITING_APPROVAL and saved.state is not stored.state:
        ended_at = max((note.at for note in notes), default=claim.expires_at)
        end_approvals(connection, saved.id, ended_at)
    timeline.append(connection, saved.id, notes)
    return saved


def end_approvals(connection: Connection, incident_id: IncidentId, at: datetime) -> None:
    """Pending or unused approvals of the incident become expired or void."""
    open_states = [ApprovalState.PENDING.value, ApprovalState.APPROVED.value]
    mine = approvals.c.incident_id == incident_id
    connection.execute(
        update(approvals)
        .where(mine, approvals.c.state == ApprovalState.PENDING.value, approvals.c.expires_at <= at)
        .values(state=ApprovalState.EXPIRED.value)
    )
    connection.execute(
        update(approvals)
        .where(mine, approvals.c.state.in_(open_states))
        .values(state=ApprovalState.VOID.value)
    )


def _says_recovered(given: Incident) -> bool:
    """Whether it ends with a recovery: an escalation may also have one, because of a change left in place."""
    verdict = given.verdict
    verified = verdict is not None and verdict.kind is VerdictKind.RECOVERED
    return given.state in _RECOVERIES or (verified and given.state.closed)


def _store_next_version(connection: Connection, stored: Incident, given: Incident) -> Incident:
    """Replace `stored` by `given`, merged with what intake added; the caller holds the row and the claim."""
    if given.key != stored.key or given.opened_at != stored.opened_at:
        raise Invalid(f"incident {stored.id} cannot move to another service or time of opening")
    if given.state.closed != (given.closed_at is not None):
        raise Invalid(f"incident {stored.id} must have closed_at exactly when its state is an end")
    if _says_recovered(given) and given.joined != stored.joined:
        raise ClaimLost(f"a signal joined incident {stored.id} since it was loaded; reload it")
    merged = replace(
        given,
        joined=stored.joined,
        version=stored.version + 1,
        stale=stored.stale and given.stale,
        dry_run=stored.dry_run or given.dry_run,
        reported_by=tuple(dict.fromkeys((*stored.reported_by, *given.reported_by))),
        cluster=stored.cluster or given.cluster,
        # People own these fields: their changes since the incident was loaded stay.
        acknowledged=stored.acknowledged,
        owner=stored.owner,
        taken_over=stored.taken_over,
        resolved=stored.resolved,
    )
    merged = with_triggers(merged, union(stored.triggers, given.triggers))
    changed = {"version": merged.version, **incident_columns(merged)}
    connection.execute(_CHANGE, {"incident": stored.id, **changed})
    notifications.look_again(connection, merged)
    return merged


def with_triggers(incident: Incident, triggers: tuple[Trigger, ...]) -> Incident:
    """The incident with these triggers; a summary that still only names the triggers names the new ones."""
    untouched = incident.summary == opening_summary(incident.key, incident.triggers)
    summary = opening_summary(incident.key, triggers) if untouched else incident.summary
    return replace(incident, triggers=triggers, summary=summary)


def union(first: Sequence[Trigger], then: Sequence[Trigger]) -> tuple[Trigger, ...]:
    """Each once, in the order in which they came."""
    return tuple(dict.fromkeys((*first, *then)))


# ---------------------------------------------------------------- reading


def record_of(connection: Connection, row: Row[Any], entries: tuple[TimelineEntry, ...]) -> IncidentRecord:
    """The incident of the row with its intents and approvals, and these entries of its timeline."""
    [record] = _records_of(connection, [row], {row.id: entries})
    return record


def _records_of(
    connection: Connection,
    rows: Sequence[Row[Any]],
    timelines: Mapping[IncidentId, tuple[TimelineEntry, ...]],
) -> list[IncidentRecord]:
    """The same of several incidents, in their order."""
    ids = [row.id for row in rows]
    found = _intents_of(connection, ids)
    asked = _approvals_of(connection, ids)
    return [
        IncidentRecord(
            incident=incident_of(row),
            intents=found.get(row.id, ()),
            timeline=timelines.get(row.id, ()),
            approvals=asked.get(row.id, ()),
            timeline_length=row.timeline_length,
            timeline_head=row.timeline_head,
        )
        for row in rows
    ]


def _intents_of(
    connection: Connection, incident_ids: Sequence[IncidentId]
) -> dict[IncidentId, tuple[Intent, ...]]:
    """The intents of several incidents in one query, each incident's in the order of their sequence."""
    return _by_incident(
        map(intent_of, _rows_of(connection, _INTENTS_OF_ONE, _INTENTS_OF_SEVERAL, incident_ids))
    )


def _approvals_of(
    connection: Connection, incident_ids: Sequence[IncidentId]
) -> dict[IncidentId, tuple[Approval, ...]]:
    """The approvals of several incidents in one query, each incident's in the order of the requests."""
    return _by_incident(
        map(approval_of, _rows_of(connection, _APPROVALS_OF_ONE, _APPROVALS_OF_SEVERAL, incident_ids))
    )


def _rows_of(
    connection: Connection, one: Select[Any], several: Select[Any], incident_ids: Sequence[IncidentId]
) -> Iterable[Row[Any]]:
    """By the statement for one incident where it is one: a list in a statement is expanded at each call."""
    if len(incident_ids) == 1:
        return connection.execute(one, {"incident": incident_ids[0]})
    return connection.execute(several, {"incidents": incident_ids})


def _by_incident(parts: Iterable[Part]) -> dict[IncidentId, tuple[Part, ...]]:
    found: dict[IncidentId, list[Part]] = {}
    for one in parts:
        found.setdefault(one.incident_id, []).append(one)
    return {incident_id: tuple(mine) for incident_id, mine in found.items()}


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
