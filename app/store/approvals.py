"""Approvals as rows: asked for, answered once, used once (promise 1).

Every change is a compare-and-set on the state, under the incident's row lock:
of fifty clicks at the same moment one counts.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, and_, insert, or_, select, update

from app.agent.approvals.state import answer_note, with_answer
from app.agent.identity.audit_log import HumanDecision, HumanDecisionKind
from app.agent.identity.people import Answer, ApprovalTerms, Person
from app.agent.ids import ApprovalId, IncidentId
from app.agent.models import (
    ActionName,
    Approval,
    ApprovalState,
    Incident,
)
from app.errors import ClaimLost, Invalid, NotFound
from app.store import audit_log as trail
from app.store import timeline
from app.store.database import nonces
from app.store.database.codec import (
    IncidentBody,
    read,
    storable_text,
    writable,
)
from app.store.database.notify import ring
from app.store.database.tables import AT_ONCE, approvals, incidents


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalBody:
    """The part of an approval that no statement searches by."""

    action_index: int
    action: ActionName
    plan_hash: str
    target_token: str | None
    reasons: tuple[str, ...]
    comment: str = ""
    terms: ApprovalTerms = field(default_factory=ApprovalTerms)
    answers: tuple[Answer, ...] = ()
    escalated: int = 0


def get(connection: Connection, approval_id: ApprovalId) -> Approval | None:
    row = connection.execute(select(approvals).where(approvals.c.id == approval_id)).one_or_none()
    return None if row is None else _approval(row)


def of_incident(connection: Connection, incident_id: IncidentId) -> tuple[Approval, ...]:
    """Oldest first."""
    rows = connection.execute(
        select(approvals)
        .where(approvals.c.incident_id == incident_id)
        .order_by(approvals.c.requested_at, approvals.c.id)
    )
    return tuple(_approval(row) for row in rows)


def page(
    connection: Connection, state: ApprovalState | None, limit: int, cursor: str | None
) -> tuple[Approval, ...]:
    """Up to `limit`, newest first, after the approval that the cursor names."""
    wanted = select(approvals)
    if state is not None:
        wanted = wanted.where(approvals.c.state == state.value)
    if cursor is not None:
        last = get(connection, ApprovalId(cursor))
        if last is None:
            raise Invalid("cursor was not returned by this list; start again without a cursor")
        same_moment = and_(approvals.c.requested_at == last.requested_at, approvals.c.id < last.id)
        wanted = wanted.where(or_(approvals.c.requested_at < last.requested_at, same_moment))
    newest_first = wanted.order_by(approvals.c.requested_at.desc(), approvals.c.id.desc())
    return tuple(_approval(row) for row in connection.execute(newest_first.limit(limit)))


def add(connection: Connection, incident: Incident, approval: Approval) -> None:
    """Store a new request; the caller holds the claim."""
    if approval.incident_id != incident.id or approval.state is not ApprovalState.PENDING:
        raise Invalid(f"approval {approval.id} must be a pending one of incident {incident.id}")
    connection.execute(
        insert(approvals).values(
            id=approval.id,
            incident_id=approval.incident_id,
            state=approval.state.value,
            requested_at=approval.requested_at,
            expires_at=approval.expires_at,
            answered_at=None,
            answered_by=None,
            body=writable(ApprovalBody, _body(approval)),
        )
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Spoken:
    """A person's answer to a request."""

    approve: bool
    by: Person
    comment: str
    at: datetime
    nonce: str | None = None


def answer(connection: Connection, approval_id: ApprovalId, spoken: Spoken) -> Approval:
    """One answer, weighed; the incident is due at once."""
    incident_id = connection.execute(
        select(approvals.c.incident_id).where(approvals.c.id == approval_id)
    ).scalar_one_or_none()
    if incident_id is None:
        raise NotFound(f"approval {approval_id} is not on record")
    # The incident first, in the lock order of all transactions, which prevents deadlocks.
    body = connection.execute(
        select(incidents.c.body).where(incidents.c.id == incident_id).with_for_update()
    ).scalar_one()
    found = get(connection, approval_id)
    if found is None:
        raise NotFound(f"approval {approval_id} is not on record")
    by = spoken.by
    said = Answer(
        by=storable_text(by.name),
        approve=spoken.approve,
        at=spoken.at,
        comment=storable_text(spoken.comment),
        roles=tuple(sorted(map(storable_text, by.roles))),
        door=by.door,
        verified=by.verified,
    )
    answered = with_answer(found, said, read(IncidentBody, body).reported_by)
    if spoken.nonce is not None:
        nonces.use(connection, approval_id, spoken.nonce, spoken.at)
    connection.execute(
        update(approvals)
        .where(approvals.c.id == approval_id, approvals.c.state == ApprovalState.PENDING.value)
        .values(
            state=answered.state.value,
            answered_at=answered.answered_at,
            answered_by=answered.answered_by,
            body=writable(ApprovalBody, _body(answered)),
        )
    )
    timeline.append(connection, found.incident_id, [answer_note(answered, said)])
    connection.execute(
        update(incidents)
        .where(incidents.c.id == incident_id)
        .values(due_at=AT_ONCE, nudges=incidents.c.nudges + 1)
    )
    ring(connection)
    trail.append(connection, _deed(answered, spoken))
    return answered


def _deed(answered: Approval, spoken: Spoken) -> HumanDecision:
    return HumanDecision(
        at=spoken.at,
        by=spoken.by,
        kind=HumanDecisionKind.APPROVED if spoken.approve else HumanDecisionKind.DENIED,
        subject=answered.id,
        data={
            "incident": answered.incident_id,
            "action": answered.action.value,
            "plan_hash": answered.plan_hash,
            "target_token": answered.target_token,
            "roles": [*sorted(spoken.by.roles)],
            "comment": spoken.comment,
        },
    )


def escalated(connection: Connection, incident_id: IncidentId, approval_id: ApprovalId, steps: int) -> bool:
    """Record that so many steps were taken; False when it does not wait for an answer any more."""
    found = get(connection, approval_id)
    if found is None or found.incident_id != incident_id or found.state is not ApprovalState.PENDING:
        return False
    body = writable(ApprovalBody, _body(replace(found, escalated=steps)))
    connection.execute(update(approvals).where(approvals.c.id == approval_id).values(body=body))
    return True


def use(connection: Connection, incident_id: IncidentId, approval_id: ApprovalId) -> None:
    """APPROVED -> USED; `ClaimLost` when the incident has none to be used by that id."""
    used = connection.execute(
        update(approvals)
        .where(
            approvals.c.id == approval_id,
            approvals.c.incident_id == incident_id,
            approvals.c.state == ApprovalState.APPROVED.value,
        )
        .values(state=ApprovalState.USED.value)
    ).rowcount
    if used != 1:
        raise ClaimLost(f"approval {approval_id} is not available; reload it")


def end_open(connection: Connection, incident_id: IncidentId, at: datetime) -> None:
    """Whatever the incident still waited for, or had not used, is expired or void."""
    open_states = [ApprovalState.PENDING.value, ApprovalState.APPROVED.value]
    mine = approvals.c.incident_id == incident_id
    connection.execute(
        update(approvals)
        .where(mine, approvals.c.state == ApprovalState.PENDING.value, approvals.c.expires_at <= at)
        .values(state=ApprovalState.EXPIRED.value)
    )
    connection.execute(
        update(approvals)
        .where(mine, approvals.c.state.in_(open_states))
        .values(state=ApprovalState.VOID.value)
    )


def _body(approval: Approval) -> ApprovalBody:
    return ApprovalBody(
        action_index=approval.action_index,
        action=approval.action,
        plan_hash=approval.plan_hash,
        target_token=approval.target_token,
        reasons=approval.reasons,
        comment=approval.comment,
        terms=approval.terms,
        answers=approval.answers,
        escalated=approval.escalated,
    )


def _approval(row: Row[Any]) -> Approval:
    body = read(ApprovalBody, row.body)
    return Approval(
        id=ApprovalId(row.id),
        incident_id=IncidentId(row.incident_id),
        action_index=body.action_index,
        action=body.action,
        plan_hash=body.plan_hash,
        target_token=body.target_token,
        reasons=body.reasons,
        requested_at=row.requested_at,
        expires_at=row.expires_at,
        state=ApprovalState(row.state),
        answered_by=row.answered_by,
        answered_at=row.answered_at,
        comment=body.comment,
        terms=body.terms,
        answers=body.answers,
        escalated=body.escalated,
    )
