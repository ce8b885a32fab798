"""Intents as rows: decided, begun by compare-and-set, finished (promises 2 and 4).

Everything here runs under the incident's row lock and a checked claim
(`app.store.claims.hold`), which is what makes count-then-begin one step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from sqlalchemy import Connection, func, insert, select, update

from app.agent.approvals.state import DENIED_BY, NO_ANSWER
from app.agent.guardrails.limits import INCIDENT_BUDGET_SPENT, Budget, namespace_of
from app.agent.ids import ApprovalId, IncidentId, IntentId
from app.agent.models import (
    ApprovalState,
    DecisionKind,
    Incident,
    Intent,
    IntentState,
    Note,
    Outcome,
    Snapshot,
)
from app.agent.ports.store.claims import Claim
from app.agent.ports.store.intents import Beginning, Begun, ReasonGuard
from app.errors import ClaimLost, Invalid, NotFound
from app.store import budgets, claims, guardrails, timeline
from app.store.database.codec import IntentBody, part_of, storable_text
from app.store.database.repository import Repository, writes
from app.store.database.rows import intent_of, result_columns
from app.store.database.tables import approvals, intents
from app.store.incidents.saving import save_next_version
from app.store.notes import begin_note, retry_note
from app.store.signals.levels import levels

REASON_CHARS = 200
"""Characters of the first reason that statistics group by."""


class SqlIntents(Repository):
    """`IntentRepository` over SQL."""

    @writes
    def add(
        self, connection: Connection, claim: Claim, incident: Incident, intent: Intent, notes: Sequence[Note]
    ) -> Incident:
        if intent.approval is not None:
            # The incident first, in the lock order of all transactions, which prevents deadlocks.
            _use_approval(connection, claims.hold(connection, claim).id, intent.approval)
        saved = save_next_version(connection, claim, incident, notes)
        if intent.incident_id != saved.id:
            raise Invalid(f"intent {intent.id} belongs to {intent.incident_id}, not to {saved.id}")
        finished = intent.state is IntentState.FINISHED
        if intent.state is IntentState.EXECUTING or finished != (intent.outcome is not None):
            raise Invalid(f"intent {intent.id} must come decided without an outcome, or finished with one")
        connection.execute(
            insert(intents).values(
                id=intent.id,
                incident_id=intent.incident_id,
                sequence=intent.sequence,
                state=intent.state.value,
                dry_run=intent.dry_run,
                undoes=intent.undoes,
                started_at=intent.started_at,
                attempts=intent.attempts,
                approval=intent.approval,
                applied_token=intent.applied_token,
                body=part_of(IntentBody, _storable(intent)),
                snapshot=intent.snapshot,
                **(result_columns(intent.outcome) if intent.outcome is not None else {}),
                **_concerns(saved, intent),
                **_decided(intent),
            )
        )
        return saved

    @writes
    def begin(
        self,
        connection: Connection,
        claim: Claim,
        intent_id: IntentId,
        snapshot: Snapshot | None,
        budget: Budget,
        at: datetime,
        reasons: ReasonGuard | None = None,
    ) -> Beginning:
        incident = claims.hold(connection, claim)
        intent = _get(connection, incident.id, intent_id)
        if intent.dry_run or intent.decision.kind is not DecisionKind.ALLOW:
            raise Invalid(f"intent {intent_id} has no decision that allows a real effect")
        if intent.state is not IntentState.DECIDED:
            return Beginning(begun=Begun.NOT_DECIDED)
        if not intent.own_undo:
            if guardrails.holds(connection):
                return Beginning(begun=Begun.BRAKED)
            # An undo spends nothing of the incident's budget.
            if intent.undoes is None and _begun(connection, incident.id) >= budget.per_incident:
                return Beginning(begun=Begun.BUDGET_SPENT, reasons=(INCIDENT_BUDGET_SPENT,))
            exceeded = budgets.over(connection, incident, intent, budget, at)
            if exceeded:
                return Beginning(begun=Begun.BUDGET_SPENT, reasons=tuple(each.reason for each in exceeded))
            if budget.alone and budgets.under_way(connection, intent):
                words = f"another {intent.action.words} is under way"
                return Beginning(begun=Begun.BUDGET_SPENT, reasons=(words,))
            # Last, after every lock was waited for.
            refused = _refusal(connection, incident, reasons)
            if refused is not None:
                return Beginning(begun=Begun.NO_REASON, reasons=(refused,))
        connection.execute(
            update(intents)
            .where(intents.c.id == intent_id, intents.c.state == IntentState.DECIDED.value)
            .values(state=IntentState.EXECUTING.value, started_at=at, snapshot=snapshot, attempts=1)
        )
        timeline.append(connection, incident.id, [begin_note(intent, snapshot, at)])
        return Beginning(begun=Begun.YES)

    @writes
    def retry(
        self,
        connection: Connection,
        claim: Claim,
        intent_id: IntentId,
        limit: int,
        at: datetime,
        reasons: ReasonGuard | None = None,
    ) -> Begun:
        incident = claims.hold(connection, claim)
        intent = _get(connection, incident.id, intent_id)
        if intent.state is not IntentState.EXECUTING:
            return Begun.NOT_DECIDED
        if not intent.own_undo and guardrails.holds(connection):
            return Begun.BRAKED
        if intent.attempts >= limit:
            return Begun.BUDGET_SPENT
        if intent.undoes is None and _refusal(connection, incident, reasons) is not None:
            return Begun.NO_REASON
        again = replace(intent, attempts=intent.attempts + 1)
        connection.execute(update(intents).where(intents.c.id == intent_id).values(attempts=again.attempts))
        timeline.append(connection, incident.id, [retry_note(again, at)])
        return Begun.YES

    @writes
    def finish(
        self,
        connection: Connection,
        claim: Claim,
        intent_id: IntentId,
        outcome: Outcome,
        applied_token: str | None,
        notes: Sequence[Note],
    ) -> None:
        incident = claims.hold(connection, claim)
        if _get(connection, incident.id, intent_id).state is IntentState.FINISHED:
            raise ClaimLost(f"intent {intent_id} is already finished")
        connection.execute(
            update(intents)
            .where(intents.c.id == intent_id, intents.c.state != IntentState.FINISHED.value)
            .values(state=IntentState.FINISHED.value, applied_token=applied_token, **result_columns(outcome))
        )
        timeline.append(connection, incident.id, notes)


def _storable(intent: Intent) -> Intent:
    by = intent.requested_by
    return intent if by is None else replace(intent, requested_by=storable_text(by))


def _refusal(connection: Connection, incident: Incident, reasons: ReasonGuard | None) -> str | None:
    """Why no reason for an action holds, according to the stored reports read in this transaction.

    A transaction that records a signal of the service locks the row of its open incident, which
    the caller holds: this transaction sees earlier commits, and later ones follow it.
    """
    if reasons is None:
        return None
    found = levels(connection, incident.key)
    return reasons.refusal(() if found is None else found.reasons)


def _concerns(incident: Incident, intent: Intent) -> dict[str, str | None]:
    """The columns that the limits count, in addition to the intent itself."""
    diagnosis = incident.diagnosis
    return {
        "environment": incident.key.environment,
        "service": incident.key.service,
        "namespace": namespace_of(intent.action),
        "cause": diagnosis.best.cause.value if diagnosis is not None else None,
        "evidence": diagnosis.fingerprint if diagnosis is not None else None,
    }


def _decided(intent: Intent) -> dict[str, object]:
    """What statistics are computed by; allowed actions need no reason there."""
    decision = intent.decision
    reasons = decision.reasons if decision.kind is not DecisionKind.ALLOW else ()
    return {
        "action": intent.action.name.value,
        "decision": decision.kind.value,
        "decided_at": decision.at,
        "reason": storable_text(_grouped(decision.kind, reasons)[:REASON_CHARS]) if reasons else None,
    }


def _grouped(kind: DecisionKind, reasons: tuple[str, ...]) -> str:
    """The reason that statistics group by: how people answered, else the first of policy."""
    # The answer of people comes first, before what required their approval.
    if kind is DecisionKind.DENY and reasons[0].startswith(DENIED_BY):
        return "denied by a person"
    if kind is DecisionKind.DENY and reasons[0].startswith(NO_ANSWER):
        return "no answer in time"
    return reasons[0]


def _use_approval(connection: Connection, incident_id: IncidentId, approval_id: ApprovalId) -> None:
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


def _get(connection: Connection, incident_id: IncidentId, intent_id: IntentId) -> Intent:
    row = connection.execute(
        select(intents).where(intents.c.id == intent_id, intents.c.incident_id == incident_id)
    ).one_or_none()
    if row is None:
        raise NotFound(f"intent {intent_id} of incident {incident_id} is not on record")
    return intent_of(row)


def _begun(connection: Connection, incident_id: IncidentId) -> int:
    count = connection.execute(
        select(func.count())
        .select_from(intents)
        .where(
            intents.c.incident_id == incident_id,
            intents.c.started_at.is_not(None),
            intents.c.undoes.is_(None),
        )
    ).scalar_one()
    return int(count)
