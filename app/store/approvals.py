"""Approvals as rows: requested, answered once, used once (promise 1).

Every change is a compare-and-set on the state, under the incident's row lock:
of fifty simultaneous answers one counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from sqlalchemy import Connection, insert, select, update

from app.agent.approvals.state import answer_note, with_answer
from app.agent.identity.audit_log import HumanDecision, HumanDecisionKind
from app.agent.identity.people import Answer, Person
from app.agent.ids import ApprovalId
from app.agent.models import Approval, ApprovalState, Incident, Note
from app.agent.ports.store.approvals import ApprovalPage, ApprovalRecord
from app.agent.ports.store.claims import Claim
from app.errors import Invalid, NotFound
from app.store import audit_log, timeline
from app.store.database import nonces
from app.store.database.codec import read_incident_body, storable_text
from app.store.database.notify import ring
from app.store.database.repository import Repository, reads_urgently, writes, writes_urgently
from app.store.database.rows import approval_columns, approval_of, incident_of, page_of
from app.store.database.tables import AT_ONCE, approvals, incidents
from app.store.incidents.saving import save_next_version


class SqlApprovals(Repository):
    """`ApprovalRepository` over SQL."""

    @writes
    def request(
        self,
        connection: Connection,
        claim: Claim,
        incident: Incident,
        approval: Approval,
        notes: Sequence[Note],
    ) -> Incident:
        saved = save_next_version(connection, claim, incident, notes)
        if approval.incident_id != saved.id or approval.state is not ApprovalState.PENDING:
            raise Invalid(f"approval {approval.id} must be a pending one of incident {saved.id}")
        connection.execute(
            insert(approvals).values(
                id=approval.id,
                incident_id=approval.incident_id,
                requested_at=approval.requested_at,
                expires_at=approval.expires_at,
                **approval_columns(approval),
            )
        )
        return saved

    @writes
    def record_escalation(
        self,
        connection: Connection,
        claim: Claim,
        incident: Incident,
        approval_id: ApprovalId,
        steps: int,
        notes: Sequence[Note],
    ) -> Incident:
        saved = save_next_version(connection, claim, incident, notes)
        found = _get(connection, approval_id)
        if found is not None and found.incident_id == saved.id and found.state is ApprovalState.PENDING:
            values = approval_columns(replace(found, escalated=steps))
            connection.execute(update(approvals).where(approvals.c.id == approval_id).values(**values))
        return saved

    @reads_urgently
    def get(self, connection: Connection, approval_id: ApprovalId) -> Approval | None:
        return _get(connection, approval_id)

    @reads_urgently
    def find(
        self, connection: Connection, state: ApprovalState | None, *, limit: int, cursor: str | None
    ) -> ApprovalPage:
        """Each with its incident; the incidents come in one query."""
        wanted = select(approvals)
        if state is not None:
            wanted = wanted.where(approvals.c.state == state.value)
        rows, following = page_of(
            connection, wanted, approvals.c.requested_at, approvals.c.id, limit=limit, cursor=cursor
        )
        asked = {row.incident_id for row in rows}
        found = connection.execute(select(incidents).where(incidents.c.id.in_(asked)))
        known = {incident.id: incident for incident in map(incident_of, found)}
        return ApprovalPage(
            items=tuple(
                ApprovalRecord(approval=approval, incident=known[approval.incident_id])
                for approval in map(approval_of, rows)
            ),
            next_cursor=following,
        )

    @writes_urgently
    def answer(
        self,
        connection: Connection,
        approval_id: ApprovalId,
        *,
        approve: bool,
        by: Person,
        comment: str,
        at: datetime,
        nonce: str | None = None,
    ) -> Approval:
        incident_id = connection.execute(
            select(approvals.c.incident_id).where(approvals.c.id == approval_id)
        ).scalar_one_or_none()
        if incident_id is None:
            raise NotFound(f"approval {approval_id} is not on record")
        # The incident first, in the lock order of all transactions, which prevents deadlocks.
        body = connection.execute(
            select(incidents.c.body).where(incidents.c.id == incident_id).with_for_update()
        ).scalar_one()
        found = _get(connection, approval_id)
        if found is None:
            raise NotFound(f"approval {approval_id} is not on record")
        said = Answer(
            by=storable_text(by.name),
            approve=approve,
            at=at,
            comment=storable_text(comment),
            roles=tuple(sorted(map(storable_text, by.roles))),
            door=by.door,
            verified=by.verified,
        )
        answered = with_answer(found, said, read_incident_body(body).reported_by)
        if nonce is not None:
            nonces.use(connection, approval_id, nonce, at)
        connection.execute(
            update(approvals)
            .where(approvals.c.id == approval_id, approvals.c.state == ApprovalState.PENDING.value)
            .values(**approval_columns(answered))
        )
        timeline.append(connection, found.incident_id, [answer_note(answered, said)])
        connection.execute(
            update(incidents)
            .where(incidents.c.id == incident_id)
            .values(due_at=AT_ONCE, nudges=incidents.c.nudges + 1)
        )
        ring(connection)
        audit_log.append(connection, _decision(answered, by, comment, at, approve=approve))
        return answered

    @writes
    def issue_nonce(self, connection: Connection, approval_id: ApprovalId, nonce: str, at: datetime) -> None:
        nonces.issue(connection, approval_id, nonce, at)


def _decision(answered: Approval, by: Person, comment: str, at: datetime, *, approve: bool) -> HumanDecision:
    return HumanDecision(
        at=at,
        by=by,
        kind=HumanDecisionKind.APPROVED if approve else HumanDecisionKind.DENIED,
        subject=answered.id,
        data={
            "incident": answered.incident_id,
            "action": answered.action.value,
            "plan_hash": answered.plan_hash,
            "target_token": answered.target_token,
            "roles": [*sorted(by.roles)],
            "comment": comment,
        },
    )


def _get(connection: Connection, approval_id: ApprovalId) -> Approval | None:
    row = connection.execute(select(approvals).where(approvals.c.id == approval_id)).one_or_none()
    return None if row is None else approval_of(row)
