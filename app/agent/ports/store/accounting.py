"""The accounting of accepted signals."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from app.agent.audit.accounting import AuditQuestion, Discrepancies, Repairs, SignalAudit


class AccountingRepository(Protocol):
    """The proof that every accepted signal has its end (promise 9)."""

    async def audit(self, question: AuditQuestion) -> SignalAudit:
        """The sum over every accepted signal and the discrepancies, as of one instant."""
        ...

    async def discrepancies(self, question: AuditQuestion) -> Discrepancies:
        """The discrepancies without the sum: cheap enough for every sweep."""
        ...

    async def repair(self, now: datetime) -> Repairs:
        """Put right what needs no judgement, and count it; at most 500 signals and 100 incidents."""
        ...
