"""Operations of people on incidents, as rows: effect, timeline and audit trail in one transaction.

A take-over voids the worker's claim by raising its fencing token, and marks the row
as held, so that no worker claims the incident until it is handed back (promise 3).
"""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import Connection, select, update

from app.agent.ids import IncidentId, IntentId, ServiceKey
from app.agent.models import Incident, IncidentState, IntentState, Outcome
from app.agent.responders.effect import Handled, handled
from app.agent.responders.request import ResponderAct, ResponderRequest
from app.errors import Conflict, NotFound
from app.store import audit_log, notifications, timeline
from app.store.database import locks
from app.store.database.codec import storable_text
from app.store.database.notify import ring
from app.store.database.repository import Repository, writes_urgently
from app.store.database.rows import incident_columns, result_columns
from app.store.database.tables import AT_ONCE, claims, incidents, intents
from app.store.incidents.records import record_of
from app.store.incidents.saving import end_approvals


class SqlResponders(Repository):
    """`ResponderRepository` over SQL."""

    @writes_urgently
    def respond(self, connection: Connection, incident_id: IncidentId, request: ResponderRequest) -> Incident:
        if request.act is ResponderAct.UNDO:
            _hold_service(connection, incident_id)
        # The incident first, in the lock order of all transactions, which prevents deadlocks.
        row = connection.execute(
            select(incidents).where(incidents.c.id == incident_id).with_for_update()
        ).one_or_none()
        if row is None:
            raise NotFound(f"incident {incident_id} is not on record")
        # What became of its changes, and whether a person ever took it over.
        read = request.act in (ResponderAct.RESOLVE, ResponderAct.UNDO, ResponderAct.HAND_BACK)
        record = record_of(connection, row, timeline.entries(connection, incident_id) if read else ())
        change = handled(record, _storable(request))
        if change.note is None:
            return record.incident
        if change.reopens:
            _refuse_beside_another(connection, record.incident)
        # Only operations that must end a running pass make it start again from the stored record.
        ends_pass = change.releases_claim or change.due
        before = record.incident
        after = replace(change.incident, version=before.version + (1 if ends_pass else 0))
        connection.execute(
            update(incidents)
            .where(incidents.c.id == incident_id)
            .values(version=after.version, **incident_columns(after))
        )
        for intent_id, outcome in change.finished:
            _finish(connection, intent_id, outcome)
        if before.state is IncidentState.AWAITING_APPROVAL and after.state is not before.state:
            end_approvals(connection, incident_id, request.at)
        _pass_on(connection, incident_id, change)
        timeline.append(connection, incident_id, [change.note])
        notifications.look_again(connection, after)
        if change.audit is not None:
            audit_log.append(connection, change.audit)
        return after


def _hold_service(connection: Connection, incident_id: IncidentId) -> None:
    """No incident of the service is opened until this transaction ends."""
    row = connection.execute(
        select(incidents.c.environment, incidents.c.service).where(incidents.c.id == incident_id)
    ).one_or_none()
    if row is not None:
        key = ServiceKey(environment=row.environment, service=row.service)
        locks.hold(connection, locks.Space.SERVICE, [str(key)])


def _refuse_beside_another(connection: Connection, incident: Incident) -> None:
    other = connection.execute(
        select(incidents.c.id).where(
            incidents.c.environment == incident.key.environment,
            incidents.c.service == incident.key.service,
            incidents.c.closed_at.is_(None),
            incidents.c.id != incident.id,
        )
    ).scalar_one_or_none()
    if other is not None:
        raise Conflict(
            f"incident {other} of {incident.key.service} is open: the agent runs one action of a service "
            "at a time. Take that incident over, or wait for its end"
        )


def _storable(request: ResponderRequest) -> ResponderRequest:
    return replace(
        request,
        by=replace(request.by, name=storable_text(request.by.name)),
        text=storable_text(request.text),
        owner=None if request.owner is None else storable_text(request.owner),
    )


def _finish(connection: Connection, intent_id: IntentId, outcome: Outcome) -> None:
    connection.execute(
        update(intents)
        .where(intents.c.id == intent_id, intents.c.state != IntentState.FINISHED.value)
        .values(state=IntentState.FINISHED.value, **result_columns(outcome))
    )


def _pass_on(connection: Connection, incident_id: IncidentId, change: Handled) -> None:
    """Take the incident from its worker, or make it due for one."""
    if change.releases_claim:
        connection.execute(
            update(claims)
            .where(claims.c.incident_id == incident_id)
            .values(owner=None, token=claims.c.token + 1, interruptions=0)
        )
    if change.due:
        connection.execute(
            update(incidents)
            .where(incidents.c.id == incident_id)
            .values(due_at=AT_ONCE, nudges=incidents.c.nudges + 1)
        )
        ring(connection)
