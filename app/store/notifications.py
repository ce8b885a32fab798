"""Sent and pending channel notifications, as rows.

Of an incident that ended longer ago than `channels.told_until` every notification was sent; the mark
advances automatically, so that the cost depends on recent and open incidents, not on all records.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import (
    ColumnElement,
    Connection,
    Subquery,
    and_,
    exists,
    func,
    insert,
    or_,
    select,
    union_all,
    update,
)
from sqlalchemy.exc import IntegrityError

from app.agent.freshness.clock_jumps import FAR_AHEAD
from app.agent.ids import IncidentId
from app.agent.models import Incident
from app.agent.notifications.channel import Announcement, Posting
from app.errors import Conflict, NotFound
from app.redaction import redacted
from app.store.database.codec import fields_of, storable_text
from app.store.database.repository import Repository, reads, writes
from app.store.database.tables import announcements, channels, incidents, postings

_MARK_EVERY = timedelta(hours=1)
_GIVEN_UP_AFTER = timedelta(days=30)
"""Age after which unsent notifications are dropped, which keeps the query cheap."""
_MARGIN = timedelta(minutes=30)
"""Clocks of those who end incidents may differ by so much, and a commit may take so long."""


class SqlNotifications(Repository):
    """`NotificationRepository` over SQL."""

    @writes
    def announce(self, connection: Connection, incident_id: IncidentId, text: str, at: datetime) -> None:
        """Put an announcement on record.

        Under the lock of the incident's row, so that its numbers are committed in
        their order: a channel that received one has received all before it.
        """
        known = select(incidents.c.id).where(incidents.c.id == incident_id).with_for_update()
        if connection.execute(known).one_or_none() is None:
            raise NotFound(f"incident {incident_id} is not on record")
        connection.execute(
            insert(announcements).values(incident_id=incident_id, text=storable_text(redacted(text)), at=at)
        )

    @writes
    def due(self, connection: Connection, channel: str, at: datetime, limit: int) -> tuple[IncidentId, ...]:
        mark = _mark(connection, channel, at)
        recent = _recent(channel, mark)
        if mark < at - _MARK_EVERY:
            _move_mark(connection, channel, recent, at, mark)
        # A next try further ahead than the longest wait comes from a clock that was set back since.
        due = or_(recent.c.due_at.is_(None), recent.c.due_at <= at, recent.c.due_at > at + FAR_AHEAD)
        rows = connection.execute(
            select(recent.c.id)
            .where(_unsent(recent), due)
            .order_by(recent.c.closed_at.is_not(None), recent.c.opened_at, recent.c.id)
            .limit(limit)
        )
        return tuple(IncidentId(row.id) for row in rows)

    @reads
    def get(self, connection: Connection, channel: str, incident_id: IncidentId) -> Posting | None:
        return _get(connection, channel, incident_id)

    @writes
    def save(self, connection: Connection, posting: Posting) -> Posting:
        values = {**fields_of(Posting, posting), "version": posting.version + 1}
        mine = _is(posting.channel, posting.incident_id)
        try:
            if posting.version == 0:
                with connection.begin_nested():
                    connection.execute(insert(postings).values(**values))
                changed = 1
            else:
                changed = connection.execute(
                    update(postings).where(mine, postings.c.version == posting.version).values(**values)
                ).rowcount
        except IntegrityError:
            changed = 0
        found = _get(connection, posting.channel, posting.incident_id)
        if not changed or found is None:
            raise Conflict(f"another worker notifies {posting.channel} of {posting.incident_id}")
        return found

    @reads
    def announcements(
        self, connection: Connection, incident_id: IncidentId, after: int
    ) -> tuple[Announcement, ...]:
        rows = connection.execute(
            select(announcements)
            .where(announcements.c.incident_id == incident_id, announcements.c.number > after)
            .order_by(announcements.c.number)
        )
        return tuple(
            Announcement(number=row.number, incident_id=IncidentId(row.incident_id), text=row.text, at=row.at)
            for row in rows
        )


def _get(connection: Connection, channel: str, incident_id: IncidentId) -> Posting | None:
    row = connection.execute(select(postings).where(_is(channel, incident_id))).one_or_none()
    return None if row is None else Posting(**fields_of(Posting, row))


def _mark(connection: Connection, channel: str, at: datetime) -> datetime:
    """Incidents that ended before it are finished; for a new channel it is the time of the first call."""
    mark: datetime | None = connection.execute(
        select(channels.c.told_until).where(channels.c.name == channel)
    ).scalar_one_or_none()
    if mark is None:
        mark = at
        connection.execute(insert(channels).values(name=channel, told_until=at))
    return mark


def _recent(channel: str, mark: datetime) -> Subquery:
    """Open incidents and those that ended since the mark, each with the channel's last notification.

    In two parts, so that an index finds each, regardless of the number of incidents.
    """
    mine = and_(postings.c.channel == channel, postings.c.incident_id == incidents.c.id)
    sent = select(
        incidents.c.id,
        incidents.c.opened_at,
        incidents.c.closed_at,
        incidents.c.timeline_length,
        func.coalesce(postings.c.shown, 0).label("shown"),
        func.coalesce(postings.c.refreshed, 0).label("refreshed"),
        func.coalesce(postings.c.announced, 0).label("announced"),
        postings.c.due_at,
    ).select_from(incidents.outerjoin(postings, mine))
    real = incidents.c.dry_run.is_(False)
    return union_all(
        sent.where(real, incidents.c.closed_at.is_(None)), sent.where(real, incidents.c.closed_at >= mark)
    ).subquery("recent")


def look_again(connection: Connection, incident: Incident) -> None:
    """Make the channels that were notified of an incident read it again although it ended before their mark.

    For records after its end: the recovery of its service, or an operation of a person.
    """
    if incident.closed_at is None:
        return
    notified = exists().where(_is(channels.c.name, incident.id))
    passed = and_(channels.c.told_until > incident.closed_at, notified)
    connection.execute(update(channels).where(passed).values(told_until=incident.closed_at))


def _move_mark(
    connection: Connection, channel: str, recent: Subquery, at: datetime, before: datetime
) -> None:
    """Up to the end of the incident that ended first of those with pending notifications."""
    oldest = connection.execute(select(func.min(recent.c.closed_at)).where(_unsent(recent))).scalar_one()
    mark = at - _MARGIN if oldest is None else min(oldest, at - _MARGIN)
    mark = max(mark, at - _GIVEN_UP_AFTER)
    # Not over a mark that was set back to an incident in between.
    unchanged = and_(channels.c.name == channel, channels.c.told_until == before)
    connection.execute(update(channels).where(unchanged).values(told_until=mark))


def _unsent(recent: Subquery) -> ColumnElement[bool]:
    announced = exists().where(
        announcements.c.incident_id == recent.c.id, announcements.c.number > recent.c.announced
    )
    return or_(
        recent.c.timeline_length > recent.c.shown, recent.c.timeline_length > recent.c.refreshed, announced
    )


def _is(channel: str | ColumnElement[str], incident_id: IncidentId) -> ColumnElement[bool]:
    return and_(postings.c.channel == channel, postings.c.incident_id == incident_id)
