"""The services that a set of deliveries concerns: read together, and written together.

Every service of a set is read by the same few statements: its levels, its open
incident with the end of its timeline, and the incident that closed last. The caller
holds the services' locks, and the rows of open incidents are locked as they are read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import MappingProxyType

from sqlalchemy import Connection, bindparam, func, insert, select, update

from app.agent.ids import ServiceKey
from app.agent.models import Incident, Note, Signal
from app.agent.ports.store.signals import ServiceLevels
from app.agent.timeline import chain_start
from app.store import timeline
from app.store.database.notify import ring
from app.store.database.rows import incident_columns, incident_of
from app.store.database.tables import AFTER_KNOWN, AT_ONCE, incidents, revision_history, service_levels
from app.store.signals.given import GivenStatement, columns_of
from app.store.signals.levels import Remembered, remembered, store_levels

_NONE: Mapping[ServiceKey, Remembered] = MappingProxyType({})

_OPEN = GivenStatement(
    f"SELECT {columns_of(incidents)} FROM {{services}} CROSS JOIN incidents"  # noqa: S608 - constants
    " WHERE incidents.environment = given.environment AND incidents.service = given.service"
    " AND incidents.closed_at IS NULL ORDER BY incidents.id",
    [*incidents.c],
    lock="FOR UPDATE OF incidents",
)
_LAST_CLOSED = GivenStatement(
    f"SELECT {columns_of(incidents)} FROM {{services}} CROSS JOIN incidents"  # noqa: S608 - constants
    " WHERE incidents.id = (SELECT one.id FROM incidents AS one"
    " WHERE one.environment = given.environment AND one.service = given.service"
    " AND one.closed_at IS NOT NULL ORDER BY one.closed_at DESC, one.id DESC LIMIT 1)",
    [*incidents.c],
    # Joined by the id, its planner reads the whole table while that is small.
    postgresql=f"SELECT {columns_of(incidents)} FROM {{services}} CROSS JOIN LATERAL"  # noqa: S608 - constants
    " (SELECT * FROM incidents AS one WHERE one.environment = given.environment"
    " AND one.service = given.service AND one.closed_at IS NOT NULL"
    " ORDER BY one.closed_at DESC, one.id DESC LIMIT 1) AS incidents",
)
_KNOWN = GivenStatement(
    "SELECT given.environment, given.service FROM {services} WHERE EXISTS (SELECT 1 FROM revision_history"
    " WHERE revision_history.environment = given.environment"
    " AND revision_history.service = given.service)",
    [revision_history.c.environment, revision_history.c.service],
)
_JOINED = (
    update(incidents)
    .where(incidents.c.id == bindparam("of_id"))
    .values({name: bindparam(f"new_{name}") for name in ("joined", "timeline_length", "timeline_head")})
)
"""For an incident without other changes: writing the rest of its row would be most of the cost of a join."""
_UPDATE = (
    update(incidents)
    .where(incidents.c.id == bindparam("of_id"))
    .values(
        {
            name: bindparam(f"new_{name}")
            for name in (
                "state",
                "closed_at",
                "wake_at",
                "stale",
                "dry_run",
                "triggers",
                "severity",
                "body",
                "joined",
                "timeline_length",
                "timeline_head",
            )
        }
    )
)


@dataclass(slots=True, kw_only=True, eq=False)
class Service:
    """One service within a transaction: its stored state, and its state after the decisions."""

    key: ServiceKey
    newest_sample: int | None
    """The number of its newest sample that is not a signal."""
    stored_levels: ServiceLevels | None
    levels: ServiceLevels | None
    stored: Incident | None
    """The open incident on record."""
    incident: Incident | None
    """The open incident."""
    closed: Incident | None
    """The incident that closed last."""
    entries: int = 0
    """In the timeline of the open incident, on record."""
    head: str = ""
    """The hash of the last of them."""
    unknown_to: str | None = None
    """The sender of the new incident, where the agent does not know the service itself."""
    none_pending: bool = False
    """It has no pending signal."""
    added_pending: bool = False
    """A signal of it was recorded as pending in this transaction."""
    joined_pending: bool = False
    """Its pending signals on record join the open incident when the transaction is written."""
    began_at: datetime | None = None
    """When the first signal of the new incident observed it; None where that is not known."""
    notes: list[Note] = field(default_factory=list)
    """For the timeline of the open incident, and not written yet."""

    def opened(self, incident: Incident, unknown_to: str | None, signals: Sequence[Signal]) -> None:
        """A new incident, written with the others of the transaction; `signals` opened it."""
        self.incident, self.unknown_to = incident, unknown_to
        seen = [signal.observed_at for signal in signals if not signal.stale]
        self.began_at = min(incident.opened_at, *seen) if seen and not incident.stale else None
        self.entries, self.head = 0, chain_start(incident.id)


def read(
    connection: Connection, keys: Collection[ServiceKey], before: Mapping[ServiceKey, Remembered] = _NONE
) -> dict[ServiceKey, Service]:
    """The services as they are on record; of some the transaction has read the levels `before`."""
    known = {**before, **remembered(connection, [key for key in keys if key not in before])}
    open_now = {_key(row): row for row in _OPEN.services(connection, keys)}
    closed = {_key(row): incident_of(row) for row in _LAST_CLOSED.services(connection, keys)}
    found = {}
    for key in keys:
        row = open_now.get(key)
        incident = None if row is None else incident_of(row)
        found[key] = Service(
            key=key,
            newest_sample=known[key].newest_sample,
            stored_levels=known[key].levels,
            levels=known[key].levels,
            stored=incident,
            incident=incident,
            closed=closed.get(key),
            entries=0 if row is None else row.timeline_length,
            head="" if row is None else row.timeline_head,
        )
    return found


def known(connection: Connection, keys: Iterable[ServiceKey]) -> set[ServiceKey]:
    """The services that the agent has observed in its own cluster."""
    return {_key(row) for row in _KNOWN.services(connection, keys)}


def count(connection: Connection, most: int) -> int:
    """How many services are on record, counted up to `most`."""
    some = select(service_levels.c.service).limit(most).subquery()
    return int(connection.execute(select(func.count()).select_from(some)).scalar_one())


def write_incidents(connection: Connection, services: Sequence[Service]) -> None:
    """Store new incidents, and what signals added to others, with the new entries of their timelines."""
    new, changed, joined, entries = [], [], [], []
    for one in services:
        incident = one.incident
        if incident is None or (incident == one.stored and not one.notes):
            continue
        added = timeline.linked(one.head, one.entries, one.notes)
        if added:
            one.entries, one.head = one.entries + len(added), added[-1].hash
        entries += [(incident.id, entry) for entry in added]
        columns: dict[str, object] = {
            "joined": incident.joined,
            "timeline_length": one.entries,
            "timeline_head": one.head,
        }
        if one.stored is None:
            new.append(columns | incident_columns(incident) | _fixed(incident, one))
        elif replace(incident, joined=one.stored.joined) == one.stored:
            joined.append(_update_of(incident, columns))
        else:
            changed.append(_update_of(incident, columns | incident_columns(incident)))
        one.stored, one.notes = incident, []
    if new:
        connection.execute(insert(incidents), new)
        ring(connection)
    if changed:
        connection.execute(_UPDATE, changed)
    if joined:
        connection.execute(_JOINED, joined)
    timeline.add(connection, entries)


def _update_of(incident: Incident, columns: dict[str, object]) -> dict[str, object]:
    return {"of_id": incident.id} | {f"new_{name}": value for name, value in columns.items()}


def write_levels(connection: Connection, services: Sequence[Service]) -> None:
    """Store the levels that differ from those on record."""
    changed = [one for one in services if one.levels is not None and one.levels is not one.stored_levels]
    store_levels(connection, {one.key: one.levels for one in changed if one.levels is not None})
    for one in changed:
        one.stored_levels = one.levels


def _fixed(incident: Incident, one: Service) -> dict[str, object]:
    """What never changes after an incident was opened."""
    return {
        "id": incident.id,
        "environment": incident.key.environment,
        "service": incident.key.service,
        "opened_at": incident.opened_at,
        "version": incident.version,
        "due_at": AT_ONCE if one.unknown_to is None else AFTER_KNOWN,
        "sender": one.unknown_to,
        "began_at": one.began_at,
    }


def _key(row: object) -> ServiceKey:
    return ServiceKey(environment=row.environment, service=row.service)  # type: ignore[attr-defined]  # a row
