"""Answers to approval requests: once; a repeated answer by the same person is accepted.

Used by the API, the dashboard and the command line.
"""

from __future__ import annotations

from datetime import datetime

from app.agent.identity.people import Person, same_person
from app.agent.ids import ApprovalId
from app.agent.models import Approval, ApprovalState
from app.agent.ports.store.approvals import ApprovalRepository
from app.errors import Conflict


def said_yes(approval: Approval) -> bool | None:
    """The answer; None without one. An approval may since have been used or become void."""
    return None if approval.answered_by is None else approval.state is not ApprovalState.DENIED


async def answer(
    approvals: ApprovalRepository,
    approval_id: ApprovalId,
    *,
    approve: bool,
    by: Person,
    comment: str,
    at: datetime,
    nonce: str | None = None,
) -> Approval:
    """Record an answer, or return the same recorded one: a sender may retry after a lost response.

    Raises `NotFound`, `NotEntitled` when this person may not answer, and `Conflict`
    when something else was answered, by whomever, it is too late, or the button's
    nonce was used.
    """
    try:
        return await approvals.answer(
            approval_id, approve=approve, by=by, comment=comment, at=at, nonce=nonce
        )
    except Conflict:
        found = await approvals.get(approval_id)
        if found is None or not any(
            one.approve is approve and same_person(one.by, by.name) for one in found.answers
        ):
            raise
        return found
