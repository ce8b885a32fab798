"""Rows of incidents, intents and approvals to values, and the columns that hold a value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Column, Connection, Row, Select, and_, or_, select
from sqlalchemy.sql import ColumnElement

from app.agent.analytics.times import restored_at
from app.agent.ids import ApprovalId, IncidentId, IntentId, ServiceKey
from app.agent.models import (
    Approval,
    ApprovalState,
    Incident,
    IncidentState,
    Intent,
    IntentState,
    Outcome,
    Trigger,
)
from app.agent.responders.attention import severity
from app.errors import Invalid
from app.store.database.codec import (
    ApprovalBody,
    IncidentBody,
    IntentBody,
    fields_of,
    incident_body,
    part_of,
    read,
    read_incident_body,
    read_optional,
    read_snapshot,
    storable_text,
)

_SEARCHED_CHARS = 600
"""Characters of a summary that a search looks at."""


def page_of(
    connection: Connection,
    wanted: Select[Any],
    moment: Column[Any],
    key: Column[Any],
    *,
    limit: int,
    cursor: str | None,
    oldest_first: bool = False,
    within: int | None = None,
) -> tuple[Sequence[Row[Any]], str | None]:
    """One page, newest first by default, and the cursor of the next: the key of the page's last row.

    Rows are kept permanently, so a cursor never loses its place, even if incidents open or end. `within`:
    the maximum number of rows to read, matching or not; a page may then be short, or empty, and have a next
    one. `Invalid` for a cursor that names no row.
    """
    if limit < 1:
        raise Invalid(f"limit is {limit}; it must be at least 1")
    after: list[ColumnElement[bool]] = []
    if cursor is not None:
        last = connection.execute(select(moment, key).where(key == cursor)).one_or_none()
        if last is None:
            raise Invalid("cursor was not returned by this list; start again without a cursor")
        after = _beyond(moment, key, last, forward=oldest_first)
    order = (moment.asc(), key.asc()) if oldest_first else (moment.desc(), key.desc())
    rest = None
    if within is not None:
        edge = select(moment, key).where(*after).order_by(*order).offset(within - 1).limit(1)
        rest = connection.execute(edge).one_or_none()
        if rest is not None:
            inside = _beyond(moment, key, rest, forward=not oldest_first)
            after += [inside[0], or_(key == rest[1], inside[1])]
    rows = connection.execute(wanted.where(*after).order_by(*order).limit(limit + 1)).all()
    if len(rows) > limit:
        return rows[:limit], str(rows[limit - 1].id)
    return rows, None if rest is None else str(rest[1])


def _beyond(
    moment: Column[Any], key: Column[Any], place: Row[Any, Any], *, forward: bool
) -> list[ColumnElement[bool]]:
    """The rows after a position in the order; only the first condition is a range of the index."""
    at, name = place
    tie = and_(moment == at, key > name if forward else key < name)
    if forward:
        return [moment >= at, or_(moment > at, tie)]
    return [moment <= at, or_(moment < at, tie)]


def incident_of(row: Row[Any]) -> Incident:
    return Incident(
        id=IncidentId(row.id),
        key=ServiceKey(environment=row.environment, service=row.service),
        state=IncidentState(row.state),
        opened_at=row.opened_at,
        triggers=tuple(Trigger(trigger) for trigger in row.triggers),
        stale=row.stale,
        dry_run=row.dry_run,
        version=row.version,
        closed_at=row.closed_at,
        joined=row.joined,
        wake_at=row.wake_at,
        **fields_of(IncidentBody, read_incident_body(row.body)),
    )


def incident_columns(incident: Incident) -> dict[str, object]:
    """The columns that may change after an incident was opened."""
    return {
        "state": incident.state.value,
        "closed_at": incident.closed_at,
        "wake_at": incident.wake_at,
        "stale": incident.stale,
        "dry_run": incident.dry_run,
        "triggers": list(incident.triggers),
        "body": incident_body(incident),
        "held_by": None if incident.held_by is None else storable_text(incident.held_by),
        "search": _searched(incident),
        **_counted(incident),
    }


def _counted(incident: Incident) -> dict[str, object]:
    """The columns for statistics, in addition to the search columns."""
    plan, seen, lesson = incident.plan, incident.acknowledged, incident.lesson
    return {
        "cause": incident.diagnosis.best.cause.value if incident.diagnosis is not None else None,
        "severity": severity(incident).value,
        "runbook": storable_text(plan.runbook) if plan is not None and plan.runbook is not None else None,
        "worked": lesson.worked if lesson is not None else None,
        "acknowledged_at": seen.at if seen is not None else None,
        "restored_at": restored_at(incident),
    }


def _searched(incident: Incident) -> str:
    """The text that a free-text search looks in, in lower case."""
    cause = incident.diagnosis.best.cause.replace("_", " ") if incident.diagnosis is not None else ""
    words = (
        incident.key.service,
        incident.key.environment,
        incident.id,
        cause,
        incident.owner or "",
        incident.summary[:_SEARCHED_CHARS],
    )
    return storable_text(" ".join(filter(None, words)).lower())


def intent_of(row: Row[Any]) -> Intent:
    return Intent(
        id=IntentId(row.id),
        incident_id=IncidentId(row.incident_id),
        sequence=row.sequence,
        dry_run=row.dry_run,
        state=IntentState(row.state),
        snapshot=read_snapshot(row.snapshot),
        outcome=read_optional(Outcome, row.outcome),
        applied_token=row.applied_token,
        undoes=None if row.undoes is None else IntentId(row.undoes),
        started_at=row.started_at,
        attempts=row.attempts,
        approval=None if row.approval is None else ApprovalId(row.approval),
        **fields_of(IntentBody, read(IntentBody, row.body)),
    )


def result_columns(outcome: Outcome) -> dict[str, object]:
    """The outcome of an intent, and its kind for statistics."""
    return {"outcome": outcome, "result": outcome.kind.value}


def approval_of(row: Row[Any]) -> Approval:
    return Approval(
        id=ApprovalId(row.id),
        incident_id=IncidentId(row.incident_id),
        requested_at=row.requested_at,
        expires_at=row.expires_at,
        state=ApprovalState(row.state),
        answered_by=row.answered_by,
        answered_at=row.answered_at,
        **fields_of(ApprovalBody, read(ApprovalBody, row.body)),
    )


def approval_columns(approval: Approval) -> dict[str, object]:
    """The columns that an answer changes."""
    return {
        "state": approval.state.value,
        "answered_at": approval.answered_at,
        "answered_by": approval.answered_by,
        "body": part_of(ApprovalBody, approval),
    }
