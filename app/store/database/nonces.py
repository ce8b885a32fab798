"""Nonces: a button or a command counts once, however often it is sent again; only hashes are kept."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, and_, delete, insert, or_, select, update

from app.agent.identity.people import digest
from app.agent.models import ApprovalState
from app.errors import Conflict
from app.store.database.tables import approvals, nonces

BATCH = 500
"""Nonces that one transaction removes at most."""


def issue(connection: Connection, subject: str, nonce: str, at: datetime) -> None:
    """Issue a nonce for one use, for this subject only."""
    connection.execute(insert(nonces).values(digest=digest(nonce), subject=subject, issued_at=at))


def use(connection: Connection, subject: str, nonce: str, at: datetime) -> None:
    """Use it up, and every other of its subject; `Conflict` when it was never issued for it, or used."""
    mine = nonces.c.subject == subject
    used = connection.execute(
        update(nonces)
        .where(mine, nonces.c.digest == digest(nonce), nonces.c.used_at.is_(None))
        .values(used_at=at)
    ).rowcount
    if used != 1:
        raise Conflict("this button was already used or belongs to another request; use the newest message")
    connection.execute(update(nonces).where(mine, nonces.c.used_at.is_(None)).values(used_at=at))


def once(connection: Connection, subject: str, nonce: str, at: datetime) -> None:
    """Record a nonce issued elsewhere; `Conflict` when it was seen before."""
    hashed = digest(nonce)
    seen = connection.execute(select(nonces.c.digest).where(nonces.c.digest == hashed)).one_or_none()
    if seen is not None:
        raise Conflict("this command was already executed")
    connection.execute(insert(nonces).values(digest=hashed, subject=subject, issued_at=at, used_at=at))


def forget(connection: Connection, older_than: datetime) -> int:
    """Remove nonces used before that time, and nonces issued before it whose approval is no longer pending.

    At most `BATCH` of them; return how many.
    """
    waiting = select(approvals.c.id).where(approvals.c.state == ApprovalState.PENDING.value)
    useless = and_(nonces.c.issued_at < older_than, nonces.c.subject.not_in(waiting))
    old = select(nonces.c.digest).where(or_(nonces.c.used_at < older_than, useless)).limit(BATCH)
    return connection.execute(delete(nonces).where(nonces.c.digest.in_(old))).rowcount
