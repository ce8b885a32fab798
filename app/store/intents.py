"""Intents as rows: decided, begun by compare-and-set, finished (promises 2 and 4).

Every function here runs under the incident's row lock and a checked claim
(`app.store.claims.hold`), which is what makes count-then-begin one step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select, update

from app.agent.guardrails.limits import INCIDENT_BUDGET_SPENT, Budget
from app.agent.ids import ApprovalId, IncidentId, IntentId
from app.agent.models import (
    DecisionKind,
    Incident,
    Intent,
    IntentState,
    Outcome,
    Snapshot,
)
from app.agent.ports.store import Beginning, Begun
from app.errors import ClaimLost, Invalid, NotFound
from app.store import brakes, budgets
from app.store.database.codec import (
    IntentBody,
    intent_body,
    read,
    read_optional,
    read_snapshot,
    writable,
)
from app.store.database.tables import intents


def of_incidents(
    connection: Connection, incident_ids: Sequence[IncidentId]
) -> dict[IncidentId, tuple[Intent, ...]]:
    """The intents of several incidents in one query, each incident's in the order of their sequence."""
    rows = connection.execute(
        select(intents).where(intents.c.incident_id.in_(incident_ids)).order_by(intents.c.sequence)
    )
    found: dict[IncidentId, tuple[Intent, ...]] = {}
    for row in rows:
        intent = _intent(row)
        found[intent.incident_id] = (*found.get(intent.incident_id, ()), intent)
    return found


def add(connection: Connection, incident: Incident, intent: Intent) -> None:
    """Store a decided intent; one that is refused or rehearsed comes finished, with its outcome."""
    if intent.incident_id != incident.id:
        raise Invalid(f"intent {intent.id} belongs to {intent.incident_id}, not to {incident.id}")
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
            body=writable(IntentBody, intent_body(intent)),
            snapshot=intent.snapshot,
            outcome=intent.outcome,
            **_concerns(incident, intent),
        )
    )


def _concerns(incident: Incident, intent: Intent) -> dict[str, str | None]:
    """What the limits count by, beside the intent itself."""
    target, diagnosis = intent.action.target, incident.diagnosis
    return {
        "environment": incident.key.environment,
        "service": incident.key.service,
        "namespace": target.namespace if target is not None else None,
        "cause": diagnosis.best.cause.value if diagnosis is not None else None,
        "evidence": diagnosis.fingerprint if diagnosis is not None else None,
    }


def _stands() -> None:
    """Nothing is said against it: undoing and notifying need no reason."""


def begin(
    connection: Connection,
    incident: Incident,
    intent_id: IntentId,
    snapshot: Snapshot | None,
    budget: Budget,
    at: datetime,
    refusal: Callable[[], str | None] = _stands,
) -> tuple[Beginning, Intent]:
    """DECIDED -> EXECUTING, or why not, with nothing changed.

    `refusal` says why no reason for the action stands; it is asked last, after
    every lock was waited for. An undo needs no budget and no reason, and heeds no
    brake. Raises `Invalid` for an intent that
    was never allowed, or only rehearsed (promises 1 and 5): no effect may follow from it.
    """
    intent = _get(connection, incident.id, intent_id)
    if intent.dry_run or intent.decision.kind is not DecisionKind.ALLOW:
        raise Invalid(f"intent {intent_id} has no decision that allows a real effect")
    if intent.state is not IntentState.DECIDED:
        return Beginning(begun=Begun.NOT_DECIDED), intent
    if intent.undoes is None:
        if brakes.holds(connection):
            return Beginning(begun=Begun.BRAKED), intent
        if _begun(connection, incident.id) >= budget.per_incident:
            return Beginning(begun=Begun.BUDGET_SPENT, reasons=(INCIDENT_BUDGET_SPENT,)), intent
        exceeded = budgets.over(connection, incident, intent, budget, at)
        if exceeded:
            reasons = tuple(each.reason for each in exceeded)
            return Beginning(begun=Begun.BUDGET_SPENT, reasons=reasons), intent
        refused = refusal()
        if refused is not None:
            return Beginning(begun=Begun.NO_REASON, reasons=(refused,)), intent
    connection.execute(
        update(intents)
        .where(intents.c.id == intent_id, intents.c.state == IntentState.DECIDED.value)
        .values(state=IntentState.EXECUTING.value, started_at=at, snapshot=snapshot, attempts=1)
    )
    return Beginning(begun=Begun.YES), intent


def retry(
    connection: Connection,
    incident_id: IncidentId,
    intent_id: IntentId,
    limit: int,
    refusal: Callable[[], str | None] = _stands,
) -> tuple[Begun, Intent]:
    """One more attempt at an intent that was begun, or why not, with nothing changed."""
    intent = _get(connection, incident_id, intent_id)
    if intent.state is not IntentState.EXECUTING:
        return Begun.NOT_DECIDED, intent
    if intent.undoes is None and brakes.holds(connection):
        return Begun.BRAKED, intent
    if intent.attempts >= limit:
        return Begun.BUDGET_SPENT, intent
    if intent.undoes is None and refusal() is not None:
        return Begun.NO_REASON, intent
    connection.execute(update(intents).where(intents.c.id == intent_id).values(attempts=intent.attempts + 1))
    return Begun.YES, replace(intent, attempts=intent.attempts + 1)


def finish(
    connection: Connection,
    incident_id: IncidentId,
    intent_id: IntentId,
    outcome: Outcome,
    applied_token: str | None,
) -> None:
    intent = _get(connection, incident_id, intent_id)
    if intent.state is IntentState.FINISHED:
        raise ClaimLost(f"intent {intent_id} is already finished")
    connection.execute(
        update(intents)
        .where(intents.c.id == intent_id, intents.c.state != IntentState.FINISHED.value)
        .values(state=IntentState.FINISHED.value, outcome=outcome, applied_token=applied_token)
    )


def _get(connection: Connection, incident_id: IncidentId, intent_id: IntentId) -> Intent:
    row = connection.execute(
        select(intents).where(intents.c.id == intent_id, intents.c.incident_id == incident_id)
    ).one_or_none()
    if row is None:
        raise NotFound(f"intent {intent_id} of incident {incident_id} is not on record")
    return _intent(row)


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


def _intent(row: Row[Any]) -> Intent:
    body = read(IntentBody, row.body)
    return Intent(
        id=IntentId(row.id),
        incident_id=IncidentId(row.incident_id),
        sequence=row.sequence,
        action=body.action,
        dry_run=row.dry_run,
        decision=body.decision,
        rehearsal=body.rehearsal,
        state=IntentState(row.state),
        snapshot=read_snapshot(row.snapshot),
        outcome=read_optional(Outcome, row.outcome),
        applied_token=row.applied_token,
        undoes=None if row.undoes is None else IntentId(row.undoes),
        started_at=row.started_at,
        attempts=row.attempts,
        approval=None if row.approval is None else ApprovalId(row.approval),
    )
