"""Credentials as rows: tokens and sessions, without their secrets."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import partial
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, or_, select, update

from app.agent.identity.audit_log import HumanDecision
from app.agent.identity.people import NO_LIMIT, Credential, CredentialId, CredentialKind, Reach, Scope
from app.errors import Conflict, NotFound
from app.store import audit_log
from app.store.database import nonces
from app.store.database.codec import read_optional, storable_text
from app.store.database.repository import Repository, reads, reads_urgently, writes_urgently
from app.store.database.tables import credentials

BATCH = 500
"""Sessions that one transaction removes at most."""
_TOUCHED_EVERY = timedelta(hours=1)


class SqlCredentials(Repository):
    """`CredentialRepository` over SQL."""

    @writes_urgently
    def add(
        self,
        connection: Connection,
        credential: Credential,
        human_decision: HumanDecision,
        *,
        nonce: str | None = None,
    ) -> None:
        audit_log.append(connection, human_decision)
        if nonce is not None:  # after the trail, whose lock lets only one at a time come here
            nonces.once(connection, credential.id, nonce, human_decision.at)
        connection.execute(
            insert(credentials).values(
                id=credential.id,
                kind=credential.kind.value,
                name=storable_text(credential.name),
                digest=credential.digest,
                roles=sorted(map(storable_text, credential.roles)),
                scopes=sorted(credential.scopes),
                created_at=credential.created_at,
                created_by=storable_text(credential.created_by),
                expires_at=credential.expires_at,
                reach=credential.reach if credential.reach.limited else None,
            )
        )

    @reads_urgently
    def get(self, connection: Connection, credential_id: CredentialId) -> Credential | None:
        return _get(connection, credential_id)

    @reads
    def tokens(self, connection: Connection) -> tuple[Credential, ...]:
        rows = connection.execute(
            select(credentials)
            .where(credentials.c.kind == CredentialKind.TOKEN.value)
            .order_by(credentials.c.created_at.desc(), credentials.c.id)
        )
        return tuple(_credential(row) for row in rows)

    @writes_urgently
    def revoke(
        self, connection: Connection, credential_id: CredentialId, human_decision: HumanDecision
    ) -> Credential:
        ended = connection.execute(
            update(credentials)
            .where(credentials.c.id == credential_id, credentials.c.revoked_at.is_(None))
            .values(revoked_at=human_decision.at, revoked_by=storable_text(human_decision.by.name))
        ).rowcount
        found = _get(connection, credential_id)
        if found is None:
            raise NotFound(f"credential {credential_id} is not on record")
        if not ended:
            raise Conflict(f"credential {credential_id} was already revoked by {found.revoked_by}")
        audit_log.append(connection, human_decision)
        return found

    async def touch(self, credential: Credential, at: datetime) -> None:
        used = credential.last_used_at
        if used is not None and used >= at - _TOUCHED_EVERY:
            return
        touched = update(credentials).where(credentials.c.id == credential.id).values(last_used_at=at)
        await self.database.write(lambda connection: connection.execute(touched), urgent=True)

    async def forget(self, older_than: datetime) -> int:
        await self.in_batches(partial(nonces.forget, older_than=older_than), nonces.BATCH)
        return await self.in_batches(partial(_forget, older_than=older_than), BATCH)


def _get(connection: Connection, credential_id: CredentialId) -> Credential | None:
    row = connection.execute(select(credentials).where(credentials.c.id == credential_id)).one_or_none()
    return None if row is None else _credential(row)


def _forget(connection: Connection, older_than: datetime) -> int:
    """Remove sessions that ended before that time, at most `BATCH` of them; return how many.

    The audit trail keeps the record of their use. Tokens stay: an old token that is still sent does not
    count as a guess.
    """
    ended = or_(credentials.c.expires_at < older_than, credentials.c.revoked_at < older_than)
    session = credentials.c.kind == CredentialKind.SESSION.value
    old = select(credentials.c.id).where(session, ended).limit(BATCH)
    return connection.execute(delete(credentials).where(credentials.c.id.in_(old))).rowcount


def _credential(row: Row[Any]) -> Credential:
    return Credential(
        id=CredentialId(row.id),
        kind=CredentialKind(row.kind),
        name=row.name,
        digest=row.digest,
        roles=frozenset(row.roles),
        scopes=frozenset(map(Scope, row.scopes)),
        created_at=row.created_at,
        created_by=row.created_by,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        revoked_by=row.revoked_by,
        last_used_at=row.last_used_at,
        reach=read_optional(Reach, row.reach) or NO_LIMIT,
    )
