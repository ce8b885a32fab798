"""Claims: the right to process an incident, with an expiry and a fencing token (promise 3).

The token, not the clock, decides whether a writer still may write: a holder
whose lease ran out goes on until a peer takes over, and from that commit on
every write of the old holder is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Integer, Select, and_, bindparam, exists, insert, or_, select, update
from sqlalchemy.sql import ColumnElement

from app.agent.freshness.clock_jumps import FAR_AHEAD
from app.agent.ids import FencingToken, IncidentId
from app.agent.models import Incident
from app.agent.ports.store.claims import Claim
from app.errors import ClaimLost, NotFound
from app.store.database.notify import ring
from app.store.database.repository import Repository, reads, writes
from app.store.database.rows import incident_of
from app.store.database.tables import AFTER_KNOWN, AT_ONCE, UtcDateTime, claims, incidents

_THIS_INCIDENT = incidents.c.id == bindparam("incident")
_THIS_CLAIM = claims.c.incident_id == bindparam("incident")
_LOCKED_INCIDENT = select(incidents).where(_THIS_INCIDENT).with_for_update()
_LOCKED_NUDGES = select(incidents.c.nudges, incidents.c.held_by).where(_THIS_INCIDENT).with_for_update()
_CLAIM = select(claims).where(_THIS_CLAIM)
_CHANGE_CLAIM = update(claims).where(_THIS_CLAIM)
_RELEASE = _CHANGE_CLAIM.where(
    claims.c.owner == bindparam("holder"), claims.c.token == bindparam("held_with")
)
_SET_DUE = update(incidents).where(_THIS_INCIDENT)
_SET_DUE_NOW = _SET_DUE.where(incidents.c.due_at > bindparam("now"))
_NOW = bindparam("now", type_=UtcDateTime)


def _unclaimed(when: ColumnElement[bool]) -> Select[Any]:
    """Open unclaimed incidents, by the index over due times, which keeps equal ones in order."""
    return (
        select(incidents.c.id, incidents.c.due_at, incidents.c.opened_at)
        .select_from(incidents.outerjoin(claims, claims.c.incident_id == incidents.c.id))
        .where(
            incidents.c.closed_at.is_(None),
            incidents.c.held_by.is_(None),
            when,
            or_(
                claims.c.incident_id.is_(None),
                claims.c.owner.is_(None),
                claims.c.expires_at <= _NOW,
                claims.c.expires_at > bindparam("far_ahead", type_=UtcDateTime),
            ),
        )
        .order_by(incidents.c.due_at)
        .limit(bindparam("most", type_=Integer))
        .with_for_update(of=incidents, skip_locked=True)
    )


_ANSWERED = _unclaimed(incidents.c.due_at <= AT_ONCE)
_DUE_OF_KNOWN = _unclaimed(
    and_(incidents.c.due_at > AT_ONCE, incidents.c.due_at <= _NOW, incidents.c.sender.is_(None))
)
_NEW_OF_UNKNOWN = _unclaimed(incidents.c.due_at == AFTER_KNOWN)
_DUE_OF_UNKNOWN = _unclaimed(
    and_(incidents.c.due_at > AFTER_KNOWN, incidents.c.due_at <= _NOW, incidents.c.sender.is_not(None))
)


class SqlClaims(Repository):
    """`ClaimRepository` over SQL."""

    @writes
    def take(
        self, connection: Connection, incident_id: IncidentId, owner: str, lease: timedelta, now: datetime
    ) -> Claim | None:
        return taken(connection, incident_id, owner, lease, now)

    @writes
    def take_due(
        self, connection: Connection, owner: str, lease: timedelta, now: datetime, limit: int
    ) -> tuple[Claim, ...]:
        """Claim due, unclaimed incidents; a concurrent peer gets others.

        First incidents that people answered and due incidents of known services; then the others, longest
        due first. A new incident counts from its opening, so that neither a storm of new incidents nor
        running ones delay the others without limit.
        """
        if limit < 1:
            return ()
        first = _due(connection, _ANSWERED, now, limit)
        first = [*first, *_due(connection, _DUE_OF_KNOWN, now, limit - len(first))]
        left = limit - len(first)
        unknown = _due(connection, _NEW_OF_UNKNOWN, now, left)
        resting = _due(connection, _DUE_OF_UNKNOWN, now, left)
        since = [(row.opened_at, row.id) for row in unknown] + [(row.due_at, row.id) for row in resting]
        found = [row.id for row in first] + [each for _, each in sorted(since)[:left]]
        claimed = [taken(connection, IncidentId(each), owner, lease, now) for each in found]
        return tuple(claim for claim in claimed if claim is not None)

    @reads
    def next_due(self, connection: Connection) -> datetime | None:
        # Not an outer join: with new statistics missing, PostgreSQL would sort all that rests at every poll.
        held = exists().where(claims.c.incident_id == incidents.c.id, claims.c.owner.is_not(None))
        return connection.execute(
            select(incidents.c.due_at)
            .where(incidents.c.closed_at.is_(None), incidents.c.held_by.is_(None), ~held)
            .order_by(incidents.c.due_at)
            .limit(1)
        ).scalar_one_or_none()

    @writes
    def renew(self, connection: Connection, claim: Claim, lease: timedelta, now: datetime) -> None:
        hold(connection, claim)
        connection.execute(_CHANGE_CLAIM, {"incident": claim.incident_id, "expires_at": now + lease})

    @writes
    def release(self, connection: Connection, claim: Claim, due_at: datetime | None = None) -> None:
        """Free the incident at once; the next claim of any owner gets a higher token.

        An incident that became due again since it was claimed stays due.
        """
        # The incident first, in the lock order of all transactions, which prevents deadlocks.
        this = {"incident": claim.incident_id}
        row = connection.execute(_LOCKED_NUDGES, this).one_or_none()
        freed = connection.execute(
            _RELEASE,
            {**this, "holder": claim.owner, "held_with": claim.token, "owner": None, "interruptions": 0},
        ).rowcount
        if freed and due_at is not None and row is not None and row.nudges == claim.nudges:
            connection.execute(_SET_DUE, {**this, "due_at": due_at})

    @writes
    def release_owner(self, connection: Connection, owner: str) -> int:
        return release_owner(connection, owner)


def taken(
    connection: Connection, incident_id: IncidentId, owner: str, lease: timedelta, now: datetime
) -> Claim | None:
    """Take over, reclaim or renew; `NotFound` without incident.

    None while another owner's lease is valid, and while a person has taken the incident over.
    """
    this = {"incident": incident_id}
    row = connection.execute(_LOCKED_NUDGES, this).one_or_none()
    if row is None:
        raise NotFound(f"incident {incident_id} is not on record")
    if row.held_by is not None:
        return None
    nudges = int(row.nudges)
    # Due until it is released with another time, so that a worker that finds the claim expired takes it over.
    connection.execute(_SET_DUE_NOW, {**this, "now": now, "due_at": now})
    expires_at = now + lease
    held = connection.execute(_CLAIM, this).one_or_none()
    if held is None:
        token = FencingToken(1)
        connection.execute(
            insert(claims).values(incident_id=incident_id, owner=owner, token=token, expires_at=expires_at)
        )
        return Claim(incident_id=incident_id, owner=owner, token=token, expires_at=expires_at, nudges=nudges)
    # A lease further ahead than its maximum length comes from a clock that was set back since.
    if held.owner not in {None, owner} and now < held.expires_at <= now + FAR_AHEAD:
        return None
    renewed = held.owner == owner
    token = FencingToken(held.token if renewed else held.token + 1)
    # A holder that never released died over the incident, or was cut off from the store.
    interruptions = held.interruptions + (0 if renewed or held.owner is None else 1)
    taken_over = {"owner": owner, "token": token, "expires_at": expires_at, "interruptions": interruptions}
    connection.execute(_CHANGE_CLAIM, {**this, **taken_over})
    return Claim(
        incident_id=incident_id,
        owner=owner,
        token=token,
        expires_at=expires_at,
        interruptions=interruptions,
        nudges=nudges,
    )


def _due(connection: Connection, those: Select[Any], now: datetime, limit: int) -> Sequence[Any]:
    if limit < 1:
        return ()
    return connection.execute(those, {"now": now, "far_ahead": now + FAR_AHEAD, "most": limit}).all()


def release_owner(connection: Connection, owner: str) -> int:
    """Void the claims of a dead owner; its incidents were interrupted, and stay due."""
    voided = connection.execute(
        update(claims)
        .where(claims.c.owner == owner)
        .values(owner=None, interruptions=claims.c.interruptions + 1)
    ).rowcount
    if voided:
        ring(connection)
    return voided


def hold(connection: Connection, claim: Claim) -> Incident:
    """The claimed incident, its row locked for this transaction; `ClaimLost` if the claim is invalid."""
    this = {"incident": claim.incident_id}
    row = connection.execute(_LOCKED_INCIDENT, this).one_or_none()
    held = connection.execute(_CLAIM, this).one_or_none()
    if row is None or held is None or (held.owner, held.token) != (claim.owner, claim.token):
        raise ClaimLost(f"{claim.owner} no longer holds incident {claim.incident_id}")
    incident = incident_of(row)
    if incident.closed_at is not None:
        raise ClaimLost(f"incident {claim.incident_id} is closed and cannot change")
    return incident
