"""Counts and ages of the agent's own work, in one snapshot and over indexes."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import ColumnElement, Connection, Select, case, exists, func, select

from app.agent.audit.figures import FIGURES_WINDOW, AgentFigures
from app.agent.models import (
    ApprovalState,
    DecisionKind,
    DispositionKind,
    IncidentState,
    IntentState,
    OutcomeKind,
)
from app.store.database.repository import Repository, reads
from app.store.database.tables import (
    AFTER_KNOWN,
    AT_ONCE,
    approvals,
    brakes,
    claims,
    incidents,
    intake_ledger,
    intents,
    postings,
    sample_ledger,
    signals,
    workers,
)

Kind = TypeVar("Kind", bound=StrEnum)


class SqlFigures(Repository):
    """`FiguresRepository` over SQL."""

    @reads
    def figures(
        self, connection: Connection, now: datetime, budget_window: timedelta = FIGURES_WINDOW
    ) -> AgentFigures:
        since = now - FIGURES_WINDOW
        pending = _count(connection, signals.c.received_at, signals.c.disposition == DispositionKind.PENDING)
        due = _due(connection, now)
        approval = _count(connection, approvals.c.requested_at, approvals.c.state == ApprovalState.PENDING)
        return AgentFigures(
            at=now,
            accepted_signals=sum(
                connection.execute(select(func.coalesce(func.sum(one.c.accepted), 0))).scalar_one()
                for one in (intake_ledger, sample_ledger)
            ),
            pending_signals=pending.number,
            oldest_pending_signal_at=pending.oldest,
            open_incidents=_by(
                connection,
                IncidentState,
                select(incidents.c.state, func.count())
                .where(incidents.c.closed_at.is_(None))
                .group_by(incidents.c.state),
            ),
            ended_incidents=_by(
                connection,
                IncidentState,
                select(incidents.c.state, func.count())
                .where(incidents.c.closed_at >= since)
                .group_by(incidents.c.state),
            ),
            due_incidents=due.number,
            oldest_due_incident_at=due.oldest,
            executing_actions=connection.execute(
                select(func.count()).where(intents.c.state == IntentState.EXECUTING.value)
            ).scalar_one(),
            finished_actions=_finished(connection, since),
            decisions=_decisions(connection, since),
            budgeted_actions=_begun(connection, now - budget_window),
            pending_approvals=approval.number,
            oldest_pending_approval_at=approval.oldest,
            failing_postings=connection.execute(
                select(func.count()).select_from(postings).where(postings.c.failures > 0)
            ).scalar_one(),
            kill_switch_engaged=connection.execute(
                select(exists().where(brakes.c.name == "kill_switch", brakes.c.engaged))
            ).scalar_one(),
            live_workers=connection.execute(select(func.count()).select_from(workers)).scalar_one(),
        )


class _Queue(NamedTuple):
    number: int
    oldest: datetime | None


def _count(connection: Connection, at: ColumnElement[Any], *wanted: ColumnElement[bool]) -> _Queue:
    return _Queue(*connection.execute(select(func.count(), func.min(at)).where(*wanted)).one())


def _due(connection: Connection, now: datetime) -> _Queue:
    """Incidents due and unclaimed. `due_at` of a new one, or of one that people answered, is no time."""
    held = exists().where(claims.c.incident_id == incidents.c.id, claims.c.owner.is_not(None))
    since = case(
        (incidents.c.due_at == AFTER_KNOWN, incidents.c.opened_at),
        (incidents.c.due_at == AT_ONCE, None),
        else_=incidents.c.due_at,
    )
    return _count(connection, since, incidents.c.closed_at.is_(None), incidents.c.due_at <= now, ~held)


def _finished(connection: Connection, since: datetime) -> Mapping[OutcomeKind, int]:
    kind = intents.c.outcome["kind"].as_string()
    return _by(
        connection,
        OutcomeKind,
        select(kind, func.count())
        .where(
            intents.c.started_at >= since,
            intents.c.undoes.is_(None),
            intents.c.namespace.is_not(None),
            intents.c.state == IntentState.FINISHED.value,
        )
        .group_by(kind),
    )


def _decisions(connection: Connection, since: datetime) -> Mapping[DecisionKind, int]:
    return _by(
        connection,
        DecisionKind,
        select(intents.c.decision, func.count())
        .where(intents.c.decided_at >= since, intents.c.undoes.is_(None))
        .group_by(intents.c.decision),
    )


def _begun(connection: Connection, since: datetime) -> int:
    counted = (intents.c.started_at >= since, intents.c.undoes.is_(None), intents.c.namespace.is_not(None))
    return int(connection.execute(select(func.count()).where(*counted)).scalar_one())


def _by(connection: Connection, kinds: type[Kind], query: Select[Any]) -> Mapping[Kind, int]:
    """Every kind with its count, zeros included: the first event of a new series would show no increase."""
    found = {row[0]: row[1] for row in connection.execute(query)}
    return {each: found.get(each.value, 0) for each in kinds}
