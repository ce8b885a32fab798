"""The audit trail of people as rows; the chain itself is `app.agent.identity.audit_log` (promise 12).

Appended to in the transaction of the decision. An append takes the trail's
lock, last of all its locks, so that sequences have no gap and transactions
cannot deadlock.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Row, insert, select

from app.agent.identity import audit_log
from app.agent.identity.audit_log import AuditLogEntry, HumanDecision, HumanDecisionKind
from app.agent.identity.people import Door
from app.store.database import locks
from app.store.database.codec import storable_object, storable_text
from app.store.database.repository import Repository, reads, writes_urgently
from app.store.database.tables import audit_trail


class SqlAuditLog(Repository):
    """`AuditLogRepository` over SQL."""

    @writes_urgently
    def append(self, connection: Connection, human_decision: HumanDecision) -> None:
        append(connection, human_decision)

    @reads
    def entries(self, connection: Connection, *, after: int, limit: int) -> tuple[AuditLogEntry, ...]:
        rows = connection.execute(
            select(audit_trail)
            .where(audit_trail.c.sequence > after)
            .order_by(audit_trail.c.sequence)
            .limit(limit)
        )
        return tuple(_entry(row) for row in rows)


def append(connection: Connection, human_decision: HumanDecision) -> None:
    """Append a decision."""
    locks.hold(connection, locks.Space.TRAIL, ["trail"])
    last = connection.execute(
        select(audit_trail.c.sequence, audit_trail.c.hash).order_by(audit_trail.c.sequence.desc()).limit(1)
    ).one_or_none()
    stored = replace(
        human_decision,
        by=replace(human_decision.by, name=storable_text(human_decision.by.name)),
        subject=storable_text(human_decision.subject),
        data=storable_object(human_decision.data),
    )
    entry = audit_log.entry(
        audit_log.START if last is None else last.hash, 0 if last is None else last.sequence + 1, stored
    )
    connection.execute(
        insert(audit_trail).values(
            sequence=entry.sequence,
            at=entry.at,
            actor=entry.by,
            door=entry.door.value,
            verified=entry.verified,
            kind=entry.kind.value,
            subject=entry.subject,
            data=entry.data,
            hash=entry.hash,
        )
    )


def _entry(row: Row[Any]) -> AuditLogEntry:
    return AuditLogEntry(
        sequence=row.sequence,
        at=row.at,
        by=row.actor,
        door=Door(row.door),
        verified=row.verified,
        kind=HumanDecisionKind(row.kind),
        subject=row.subject,
        data=row.data,
        hash=row.hash,
    )
