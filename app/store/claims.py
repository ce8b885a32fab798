"""Claims: the right to move an incident, with an expiry and a fencing token (promise 3).

The token, not the clock, decides whether a writer still may write: a holder
whose lease ran out goes on until a peer takes over, and from that commit on
every write of the old holder is refused.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import Connection, insert, select, update

from app.agent.models import FencingToken, Incident, IncidentId
from app.agent.ports import Claim
from app.errors import ClaimLost, NotFound
from app.store.incidents import incident_of
from app.store.tables import claims, incidents


def take(
    connection: Connection, incident_id: IncidentId, owner: str, lease: timedelta, now: datetime
) -> Claim | None:
    """Take over, take anew or renew; None while another owner's lease lives; `NotFound` without incident."""
    if _locked(connection, incident_id) is None:
        raise NotFound(f"incident {incident_id} is not on record")
    expires_at = now + lease
    held = connection.execute(select(claims).where(claims.c.incident_id == incident_id)).one_or_none()
    if held is None:
        token = FencingToken(1)
        connection.execute(
            insert(claims).values(incident_id=incident_id, owner=owner, token=token, expires_at=expires_at)
        )
        return Claim(incident_id=incident_id, owner=owner, token=token, expires_at=expires_at)
    if held.owner not in {None, owner} and held.expires_at > now:
        return None
    token = FencingToken(held.token if held.owner == owner else held.token + 1)
    connection.execute(
        update(claims)
        .where(claims.c.incident_id == incident_id)
        .values(owner=owner, token=token, expires_at=expires_at)
    )
    return Claim(incident_id=incident_id, owner=owner, token=token, expires_at=expires_at)


def release(connection: Connection, claim: Claim) -> None:
    """Free the incident at once; the next claim, by whomever, gets a higher token."""
    connection.execute(
        update(claims)
        .where(
            claims.c.incident_id == claim.incident_id,
            claims.c.owner == claim.owner,
            claims.c.token == claim.token,
        )
        .values(owner=None)
    )


def release_owner(connection: Connection, owner: str) -> int:
    return connection.execute(update(claims).where(claims.c.owner == owner).values(owner=None)).rowcount


def hold(connection: Connection, claim: Claim) -> Incident:
    """The claimed incident, its row locked for this transaction; `ClaimLost` when the right to it is gone."""
    incident = _locked(connection, claim.incident_id)
    held = connection.execute(select(claims).where(claims.c.incident_id == claim.incident_id)).one_or_none()
    if incident is None or held is None or (held.owner, held.token) != (claim.owner, claim.token):
        raise ClaimLost(f"{claim.owner} does not hold incident {claim.incident_id} any more")
    if incident.closed_at is not None:
        raise ClaimLost(f"incident {claim.incident_id} is closed, and stays as it is")
    return incident


def _locked(connection: Connection, incident_id: IncidentId) -> Incident | None:
    row = connection.execute(
        select(incidents).where(incidents.c.id == incident_id).with_for_update()
    ).one_or_none()
    return None if row is None else incident_of(row)
