"""Approvals: requests to people, and their answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from app.agent.identity.people import Person
from app.agent.ids import ApprovalId
from app.agent.models import Approval, ApprovalState, Incident, Note
from app.agent.ports.store.claims import Claim


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalRecord:
    """An approval with its incident, in the current state."""

    approval: Approval
    incident: Incident


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalPage:
    """One page of approvals, newest first."""

    items: tuple[ApprovalRecord, ...]
    next_cursor: str | None


class ApprovalRepository(Protocol):
    """Requests to people, and their answers."""

    async def request(
        self, claim: Claim, incident: Incident, approval: Approval, notes: Sequence[Note]
    ) -> Incident:
        """Save the incident (AWAITING_APPROVAL) and the request in one transaction."""
        ...

    async def get(self, approval_id: ApprovalId) -> Approval | None: ...

    async def find(self, state: ApprovalState | None, *, limit: int, cursor: str | None) -> ApprovalPage:
        """Newest first, all or those in one state; a foreign cursor raises `Invalid`."""
        ...

    async def answer(
        self,
        approval_id: ApprovalId,
        *,
        approve: bool,
        by: Person,
        comment: str,
        at: datetime,
        nonce: str | None = None,
    ) -> Approval:
        """One answer, evaluated by the terms of the request under a lock; the incident is due at once.

        Adds a timeline entry and one to the audit trail. `NotFound` for an unknown
        id; `Conflict` when it was answered already (it says by whom), has expired, or
        is void; `NotEntitled` when this person may not answer it. With a `nonce`, it
        must be one that was issued for this very request and never used: else
        `Conflict`, and nothing is changed.
        """
        ...

    async def issue_nonce(self, approval_id: ApprovalId, nonce: str, at: datetime) -> None:
        """Make a nonce valid for one answer to that request; only its hash is stored."""
        ...

    async def record_escalation(
        self, claim: Claim, incident: Incident, approval_id: ApprovalId, steps: int, notes: Sequence[Note]
    ) -> Incident:
        """Record how many steps of a request's escalation were taken; an ended request is not changed."""
        ...
