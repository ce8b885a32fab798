"""Records: incidents as rows, with the intents and approvals that belong to them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from sqlalchemy import Connection, Row, Select, bindparam, select

from app.agent.ids import IncidentId
from app.agent.models import Approval, IncidentRecord, Intent, TimelineEntry
from app.store.database.rows import approval_of, incident_of, intent_of
from app.store.database.tables import approvals, intents

Part = TypeVar("Part", Intent, Approval)
_INTENTS = select(intents).order_by(intents.c.sequence)
_INTENTS_OF_ONE = _INTENTS.where(intents.c.incident_id == bindparam("incident"))
_INTENTS_OF_SEVERAL = _INTENTS.where(intents.c.incident_id.in_(bindparam("incidents", expanding=True)))
_APPROVALS = select(approvals).order_by(approvals.c.requested_at, approvals.c.id)
_APPROVALS_OF_ONE = _APPROVALS.where(approvals.c.incident_id == bindparam("incident"))
_APPROVALS_OF_SEVERAL = _APPROVALS.where(approvals.c.incident_id.in_(bindparam("incidents", expanding=True)))


def record_of(connection: Connection, row: Row[Any], entries: tuple[TimelineEntry, ...]) -> IncidentRecord:
    """The incident of the row with its intents and approvals, and these entries of its timeline."""
    [record] = records_of(connection, [row], {row.id: entries})
    return record


def records_of(
    connection: Connection,
    rows: Sequence[Row[Any]],
    timelines: Mapping[IncidentId, tuple[TimelineEntry, ...]],
) -> list[IncidentRecord]:
    """The records of several incidents, in the order of the rows."""
    ids = [row.id for row in rows]
    found = intents_of(connection, ids)
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


def intents_of(
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
    """A single incident has its own statement, because a list in a statement is expanded at each call."""
    if len(incident_ids) == 1:
        return connection.execute(one, {"incident": incident_ids[0]})
    return connection.execute(several, {"incidents": incident_ids})


def _by_incident(parts: Iterable[Part]) -> dict[IncidentId, tuple[Part, ...]]:
    found: dict[IncidentId, list[Part]] = {}
    for one in parts:
        found.setdefault(one.incident_id, []).append(one)
    return {incident_id: tuple(mine) for incident_id, mine in found.items()}
