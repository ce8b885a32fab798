"""Credentials, and the audit log of what people decided."""

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
        """Keep a new one, with the entry of the audit trail that says whose it is and who made it.

        `Conflict`, and nothing is kept, for a `nonce` seen before.
        """
        ...

    async def get(self, credential_id: CredentialId) -> Credential | None: ...

    async def tokens(self) -> tuple[Credential, ...]:
        """Every token, newest first, those that hold no more included; sessions are not listed."""
        ...

    async def revoke(self, credential_id: CredentialId, human_decision: HumanDecision) -> Credential:
        """End it from `human_decision.at` on; `NotFound`, or `Conflict` when it was revoked before."""
        ...

    async def touch(self, credential: Credential, at: datetime) -> None:
        """Remember that it was used; written at most once an hour for each."""
        ...

    async def forget(self, older_than: datetime) -> int:
        """Remove sessions that ended before that; how many. Tokens stay, for an old one is no guess."""
        ...


class AuditLogRepository(Protocol):
    """The audit log of what people decided (promise 12)."""

    async def append(self, human_decision: HumanDecision) -> None:
        """Append to the audit trail what has no row of its own to be written with."""
        ...

    async def entries(self, *, after: int, limit: int) -> tuple[AuditLogEntry, ...]:
        """Entries with a sequence above `after` (-1: from the start), oldest first."""
        ...
