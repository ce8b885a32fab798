"""Answering what people are asked: once, and the same answer by the same person again is no quarrel.

The API, the dashboard and the command line all end here.
"""

from __future__ import annotations

from datetime import datetime

from app.agent.identity.people import Person, same_person
from app.agent.ids import ApprovalId
from app.agent.models import Approval, ApprovalState
from app.agent.ports.store import ApprovalStore
from app.errors import Conflict


def said_yes(approval: Approval) -> bool | None:
    """What was answered; None without an answer. A yes may since have been used, or become void."""
    return None if approval.answered_by is None else approval.state is not ApprovalState.DENIED


async def answer(
    store: ApprovalStore,
    approval_id: ApprovalId,
    *,
    approve: bool,
    by: Person,
    comment: str,
    at: datetime,
    nonce: str | None = None,
) -> Approval:
    """Record an answer, or find the same one recorded: a sender that never heard of it may repeat it.

    Raises `NotFound`, `NotEntitled` when this person may not answer, and `Conflict`
    when something else was answered, by whomever, it is too late, or the button's
    nonce was used.
    """
    try:
        return await store.answer(approval_id, approve=approve, by=by, comment=comment, at=at, nonce=nonce)
    except Conflict:
        found = await store.approval(approval_id)
        if found is None or not any(
            one.approve is approve and same_person(one.by, by.name) for one in found.answers
        ):
            raise
        return found
