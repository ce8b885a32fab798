"""Incidents with their timelines: reading, listing and saving."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from app.agent.audit.anchoring import Head
from app.agent.ids import IncidentId, ServiceKey
from app.agent.models import Incident, IncidentRecord, IncidentState, Note, TimelineEntry
from app.agent.ports.store.claims import Claim


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentFilter:
    """Which incidents to list; None or empty is any. Times compare with `opened_at`: since <= t < until."""

    service: str | None = None
    environment: str | None = None
    states: tuple[IncidentState, ...] = ()
    since: datetime | None = None
    until: datetime | None = None
    text: str = ""
    """Words that service, environment, id, cause, owner or summary contain, in any case; all of them must."""
    oldest_first: bool = False
    """The order of the pages: by `opened_at`, newest first unless set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One page of incidents, in the order of the filter."""

    items: tuple[IncidentRecord, ...]
    next_cursor: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenBeside:
    """Services other than the one asked about that have an open incident."""

    named: tuple[ServiceKey, ...]
    """The incidents of the named services."""
    others: tuple[ServiceKey, ...]
    """The newest of the rest, up to the limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordPart:
    """An incident with a part of its timeline."""

    record: IncidentRecord
    """Its timeline holds only the requested part."""
    length: int
    """Entries of the whole timeline."""

    @property
    def next_after(self) -> int | None:
        """The sequence after which the next part begins; None when this one is the last."""
        entries = self.record.timeline
        return entries[-1].sequence if entries and entries[-1].sequence + 1 < self.length else None


class IncidentRepository(Protocol):
    """Incidents and their timelines. Every write of the loop needs a live claim."""

    async def get(self, incident_id: IncidentId) -> IncidentRecord | None: ...

    async def get_part(
        self, incident_id: IncidentId, *, limit: int, after: int | None = None, urgent: bool = False
    ) -> RecordPart | None:
        """With at most `limit` entries: those after sequence `after` (-1: all), else the newest.

        `urgent` is for operators who answer: it uses their reserved capacity.
        """
        ...

    async def get_newest_parts(
        self, incident_ids: Collection[IncidentId], *, limit: int
    ) -> Mapping[IncidentId, RecordPart]:
        """Several incidents, each with its newest `limit` entries, in one snapshot; unknown ids are left out.

        For operators who answer: it uses their reserved capacity.
        """
        ...

    async def find(
        self, where: IncidentFilter, *, limit: int, cursor: str | None, intents: bool = True
    ) -> Page:
        """Newest first, or in the filter's order; a cursor that this store did not issue raises `Invalid`.

        A search for a text may look at a part of the incidents: its page is short, and has a cursor.
        Without `intents` they are not read, and no record has any.
        """
        ...

    async def all_open(self) -> tuple[Incident, ...]:
        """All that have not ended, oldest first. Grows with the fleet: no pass of the loop asks for it."""
        ...

    async def open_of_service(self, service: str, environment: str | None) -> tuple[Incident, ...]:
        """The open incidents of the services of that name, oldest first; one environment, or all."""
        ...

    async def open_beside(self, key: ServiceKey, named: Sequence[ServiceKey], limit: int) -> OpenBeside:
        """What else is open, read by index: which of `named`, and the newest others up to `limit`."""
        ...

    async def changed_since(self, moment: datetime) -> tuple[tuple[IncidentId, int], ...]:
        """Incidents with an entry of that time or later, each with its newest sequence; at most 500."""
        ...

    async def save(self, claim: Claim, incident: Incident, notes: Sequence[Note]) -> Incident:
        """Store the incident with its notes in one transaction; the result has the next version.

        Raises `ClaimLost` when the claim is no longer the newest, or the version
        is not the stored one. A closed incident is never changed: `ClaimLost`.
        So is an end with a recovery, by state or by verdict, over a signal with a trigger
        that joined after `incident` was loaded (`joined` differs): the pass looks again. Leaving
        AWAITING_APPROVAL ends the incident's unanswered or unused approvals as
        expired or void.
        """
        ...

    async def recover(self, incident: Incident, note: Note) -> bool:
        """Store that an escalated incident recovered by itself.

        False, and nothing is stored, if it was changed since it was loaded, or while
        its service has an open incident.
        """
        ...

    async def timeline(self, incident_id: IncidentId) -> tuple[TimelineEntry, ...]: ...

    async def timeline_heads(
        self, *, after: IncidentId | None, limit: int
    ) -> tuple[tuple[IncidentId, Head], ...]:
        """The separately stored length and last hash of each timeline, by id, after `after`."""
        ...
