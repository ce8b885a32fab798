"""Appends to and reads the timelines of incidents; the chain itself is `app.agent.timeline`.

The incident's row holds the length and last hash of its timeline. An append holds
that row's lock, so sequences have no gap, and a truncated tail is detected.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

from sqlalchemy import Connection, Row, bindparam, insert, select, update

from app.agent.ids import IncidentId
from app.agent.models import Note, Stage, TimelineEntry
from app.agent.timeline import extend_chain
from app.redaction import redacted, redacted_values
from app.store.database.codec import storable_object, storable_text
from app.store.database.tables import incidents, timeline

_HEAD = select(incidents.c.timeline_length, incidents.c.timeline_head).where(
    incidents.c.id == bindparam("incident")
)
_SET_HEAD = update(incidents).where(incidents.c.id == bindparam("incident"))
_ENTRIES = (
    select(timeline)
    .where(timeline.c.incident_id == bindparam("incident"), timeline.c.sequence > bindparam("after"))
    .order_by(timeline.c.sequence)
)
_SOME_ENTRIES = _ENTRIES.limit(bindparam("most"))


def append(connection: Connection, incident_id: IncidentId, notes: Sequence[Note]) -> None:
    """Add notes at the end; the caller holds the lock on the incident's row."""
    if not notes:
        return
    head = connection.execute(_HEAD, {"incident": incident_id}).one()
    entries = linked(head.timeline_head, head.timeline_length, notes)
    add(connection, [(incident_id, entry) for entry in entries])
    after = {"timeline_length": head.timeline_length + len(entries), "timeline_head": entries[-1].hash}
    connection.execute(_SET_HEAD, {"incident": incident_id, **after})


def linked(head: str, length: int, notes: Sequence[Note]) -> tuple[TimelineEntry, ...]:
    """The notes as the entries that follow a timeline of that length with that last hash."""
    stored = [
        replace(
            note,
            message=storable_text(redacted(note.message)),
            data=storable_object(redacted_values(note.data)),
        )
        for note in notes
    ]
    return extend_chain(head, length, stored)


def add(connection: Connection, entries: Sequence[tuple[IncidentId, TimelineEntry]]) -> None:
    """Store entries of any incidents; the caller writes length and last hash into their rows."""
    if not entries:
        return
    connection.execute(
        insert(timeline),
        [
            {
                "incident_id": incident_id,
                "sequence": entry.sequence,
                "at": entry.at,
                "stage": entry.stage.value,
                "message": entry.message,
                "data": entry.data,
                "hash": entry.hash,
            }
            for incident_id, entry in entries
        ],
    )


def entries(
    connection: Connection, incident_id: IncidentId, *, after: int = -1, limit: int | None = None
) -> tuple[TimelineEntry, ...]:
    """Entries with a sequence above `after`, in order, at most `limit`."""
    wanted: dict[str, object] = {"incident": incident_id, "after": after}
    if limit is None:
        rows = connection.execute(_ENTRIES, wanted)
    else:
        rows = connection.execute(_SOME_ENTRIES, {**wanted, "most": limit})
    return tuple(map(_entry, rows))


def newest_of_each(
    connection: Connection, incident_ids: Collection[IncidentId], limit: int
) -> dict[IncidentId, tuple[TimelineEntry, ...]]:
    """The newest entries of several incidents in one query, at most `limit` of each, in order."""
    rows = connection.execute(
        select(timeline)
        .join(incidents, incidents.c.id == timeline.c.incident_id)
        .where(incidents.c.id.in_(incident_ids), timeline.c.sequence >= incidents.c.timeline_length - limit)
        .order_by(timeline.c.incident_id, timeline.c.sequence)
    )
    return {
        IncidentId(key): tuple(map(_entry, mine))
        for key, mine in groupby(rows, key=lambda row: str(row.incident_id))
    }


def _entry(row: Row[Any]) -> TimelineEntry:
    return TimelineEntry(
        sequence=row.sequence,
        at=row.at,
        stage=Stage(row.stage),
        message=row.message,
        data=row.data,
        hash=row.hash,
    )
