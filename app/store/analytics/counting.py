"""What the database counts for a report: each part is one statement over one index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, case, func, select, text

from app.agent.analytics.report import (
    MOST_REASONS,
    MOST_SERVICES,
    Cell,
    Counted,
    DayOfActions,
    DecisionCount,
    ReasonCount,
    ServiceCount,
    StatsFilter,
)
from app.agent.analytics.shadow import Judged
from app.agent.ids import ServiceKey
from app.agent.models import (
    ActionName,
    ApprovalState,
    Cause,
    DecisionKind,
    IncidentState,
    OutcomeKind,
)
from app.store.analytics.expressions import (
    ZERO,
    about,
    bucket_of,
    day_of,
    intents_about,
    of_period,
    seconds_between,
)
from app.store.database.tables import approvals, incidents, intents

Kind = TypeVar("Kind", Cause, Judged, OutcomeKind, IncidentState)

_DETECT = seconds_between(incidents.c.began_at, incidents.c.opened_at)
_ACKNOWLEDGE = seconds_between(incidents.c.opened_at, incidents.c.acknowledged_at)
_RESTORE = seconds_between(incidents.c.opened_at, incidents.c.restored_at)
_WAIT = seconds_between(approvals.c.requested_at, approvals.c.answered_at)
_PLANNED = intents.c.undoes.is_(None)


def counted(connection: Connection, where: StatsFilter) -> Counted:
    """Everything that a report needs."""
    if connection.dialect.name == "postgresql":
        # Groups are few, which the planner cannot know: it would sort every row on disk. Compiling the
        # expressions takes longer than they run.
        connection.execute(text("SET LOCAL work_mem = '64MB'"))
        connection.execute(text("SET LOCAL jit = off"))
    return Counted(
        cells=_cells(connection, where),
        services=_services(connection, where),
        detect=_durations(connection, where, _DETECT, incidents.c.began_at),
        acknowledge=_durations(connection, where, _ACKNOWLEDGE, incidents.c.acknowledged_at),
        restore=_durations(connection, where, _RESTORE, incidents.c.restored_at),
        decisions=_decisions(connection, where),
        reasons=_reasons(connection, where),
        approvals=_approvals(connection, where),
        waits=_waits(connection, where),
        actions=_actions(connection, where),
    )


def _total(value: ColumnElement[int]) -> ColumnElement[int]:
    return func.coalesce(func.sum(value), ZERO)


def _cells(connection: Connection, where: StatsFilter) -> tuple[Cell, ...]:
    manual = round(where.manual.total_seconds())
    columns = incidents.c
    saved = case((columns.worked.is_(True) & (manual > _RESTORE), manual - _RESTORE), else_=ZERO)
    alike = (
        bucket_of(columns.opened_at, weekly=where.weekly),
        columns.state,
        columns.cause,
        columns.runbook,
        columns.worked,
        columns.dry_run,
        columns.judged,
    )
    rows = connection.execute(
        select(
            *alike,
            func.count(),
            func.count(columns.began_at),
            _total(_DETECT),
            func.count(columns.acknowledged_at),
            _total(_ACKNOWLEDGE),
            func.count(columns.restored_at),
            _total(_RESTORE),
            _total(saved),
        )
        .where(*of_period(where))
        .group_by(*alike)
    )
    return tuple(_cell(row) for row in rows)


def _cell(row: Sequence[Any]) -> Cell:
    bucket, state, cause, runbook, worked, dry_run, judged, *sums = row
    incident_count, *rest = map(int, sums)
    detected, detect, acknowledged, acknowledge, restored, restore, saved = rest
    return Cell(
        bucket=int(bucket),
        state=IncidentState(state),
        cause=_known(Cause, cause),
        runbook=runbook,
        worked=worked,
        dry_run=dry_run,
        judged=_known(Judged, judged),
        incidents=incident_count,
        detected=detected,
        detect_seconds=detect,
        acknowledged=acknowledged,
        acknowledge_seconds=acknowledge,
        restored=restored,
        restore_seconds=restore,
        saved_seconds=saved,
    )


def _known(kind: type[Kind], value: str | None) -> Kind | None:
    """None too for a value that only a later version knows."""
    return next((one for one in kind if one.value == value), None)


def _services(connection: Connection, where: StatsFilter) -> tuple[ServiceCount, ...]:
    columns, number = incidents.c, func.count().label("number")
    rows = connection.execute(
        select(
            columns.environment,
            columns.service,
            number,
            _total(case((columns.state == IncidentState.RECOVERED.value, 1), else_=ZERO)),
            _total(case((columns.state == IncidentState.ESCALATED.value, 1), else_=ZERO)),
            func.count(columns.restored_at),
            _total(_RESTORE),
        )
        .where(*of_period(where))
        .group_by(columns.environment, columns.service)
        .order_by(number.desc(), columns.environment, columns.service)
        .limit(MOST_SERVICES)
    )
    return tuple(
        ServiceCount(
            key=ServiceKey(environment=environment, service=service),
            incidents=int(incident_count),
            recovered=int(recovered),
            escalated=int(escalated),
            restored=int(restored),
            restore_seconds=int(seconds),
        )
        for environment, service, incident_count, recovered, escalated, restored, seconds in rows
    )


def _durations(
    connection: Connection, where: StatsFilter, length: ColumnElement[int], known: ColumnElement[Any]
) -> tuple[tuple[int, int], ...]:
    rows = connection.execute(
        select(length, func.count()).where(*of_period(where), known.is_not(None)).group_by(length)
    )
    return tuple((int(seconds), int(often)) for seconds, often in rows)


def _decided(where: StatsFilter) -> list[ColumnElement[bool]]:
    return [
        intents.c.decided_at >= where.since,
        intents.c.decided_at < where.until,
        _PLANNED,
        *intents_about(where),
    ]


def _decisions(connection: Connection, where: StatsFilter) -> tuple[DecisionCount, ...]:
    columns, number = intents.c, func.count().label("number")
    alike = (columns.action, columns.decision, columns.result, columns.dry_run)
    rows = connection.execute(
        select(*alike, number)
        .where(*_decided(where))
        .group_by(*alike)
        .order_by(number.desc(), columns.action, columns.decision, columns.dry_run, columns.result)
    )
    return tuple(
        DecisionCount(
            action=ActionName(action),
            decision=DecisionKind(decision),
            result=_known(OutcomeKind, result),
            dry_run=dry_run,
            number=int(count),
        )
        for action, decision, result, dry_run, count in rows
        if action in set(ActionName)
    )


def _reasons(connection: Connection, where: StatsFilter) -> tuple[ReasonCount, ...]:
    columns, number = intents.c, func.count().label("number")
    rows = connection.execute(
        select(columns.decision, columns.reason, number)
        .where(*_decided(where), columns.reason.is_not(None))
        .group_by(columns.decision, columns.reason)
        .order_by(number.desc(), columns.decision, columns.reason)
        .limit(MOST_REASONS)
    )
    return tuple(
        ReasonCount(decision=DecisionKind(decision), reason=reason, number=int(count))
        for decision, reason, count in rows
    )


def _asked(where: StatsFilter) -> list[ColumnElement[bool]]:
    meant = about(where)
    return [
        approvals.c.requested_at >= where.since,
        approvals.c.requested_at < where.until,
        *([approvals.c.incident_id == incidents.c.id, *meant] if meant else []),
    ]


def _approvals(connection: Connection, where: StatsFilter) -> tuple[tuple[ApprovalState, int], ...]:
    rows = connection.execute(
        select(approvals.c.state, func.count()).where(*_asked(where)).group_by(approvals.c.state)
    )
    return tuple(sorted((ApprovalState(state), int(number)) for state, number in rows))


def _waits(connection: Connection, where: StatsFilter) -> tuple[tuple[int, int], ...]:
    rows = connection.execute(
        select(_WAIT, func.count())
        .where(*_asked(where), approvals.c.answered_at.is_not(None), approvals.c.answered_by.is_not(None))
        .group_by(_WAIT)
    )
    return tuple((int(seconds), int(often)) for seconds, often in rows)


def _actions(connection: Connection, where: StatsFilter) -> tuple[DayOfActions, ...]:
    """As the limits count them: what touched a workload and undid nothing."""
    columns, day = intents.c, day_of(intents.c.started_at)
    by_service = (
        select(day.label("day"), func.count().label("number"))
        .where(
            columns.started_at >= where.since,
            columns.started_at < where.until,
            _PLANNED,
            columns.namespace.is_not(None),
            *intents_about(where),
        )
        .group_by(day, columns.environment, columns.service)
        .subquery()
    )
    rows = connection.execute(
        select(by_service.c.day, func.sum(by_service.c.number), func.max(by_service.c.number))
        .group_by(by_service.c.day)
        .order_by(by_service.c.day)
    )
    return tuple(
        DayOfActions(day=int(one), actions=int(number), most_of_service=int(most))
        for one, number, most in rows
    )
