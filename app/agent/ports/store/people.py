"""Credentials, and the audit log of people's decisions."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from app.agent.identity.audit_log import AuditLogEntry, HumanDecision
from app.agent.identity.people import Credential, CredentialId


class CredentialRepository(Protocol):
    """Tokens and sessions, without their secrets."""

    async def add(
        self, credential: Credential, human_decision: HumanDecision, *, nonce: str | None = None
    ) -> None:
        """Store a new one, with the entry of the audit trail that names its holder and its creator.

        `Conflict`, and nothing is stored, for a `nonce` seen before.
        """
        ...

    async def get(self, credential_id: CredentialId) -> Credential | None: ...

    async def tokens(self) -> tuple[Credential, ...]:
        """Every token, newest first, including revoked and expired ones; sessions are not listed."""
        ...

    async def revoke(self, credential_id: CredentialId, human_decision: HumanDecision) -> Credential:
        """End it from `human_decision.at` on; `NotFound`, or `Conflict` when it was revoked before."""
        ...

    async def touch(self, credential: Credential, at: datetime) -> None:
        """Remember that it was used; written at most once an hour for each."""
        ...

    async def forget(self, older_than: datetime) -> int:
        """Remove sessions that ended before that time; return how many. Tokens stay, valid or not."""
        ...


class AuditLogRepository(Protocol):
    """The audit log of people's decisions (promise 12)."""

    async def append(self, human_decision: HumanDecision) -> None:
        """Append an entry without a related row to the audit trail."""
        ...

    async def entries(self, *, after: int, limit: int) -> tuple[AuditLogEntry, ...]:
        """Entries with a sequence above `after` (-1: from the start), oldest first."""
        ...
