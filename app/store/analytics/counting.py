"""The counts for a report: each part is one statement over one index.

A row of a part is a key followed by sums, so that rows of two periods are added up by key.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from sqlalchemy import BigInteger, ColumnElement, Connection, Select, case, cast, func, select, text

from app.agent.analytics.report import StatsFilter, StatsPart
from app.agent.models import IncidentState
from app.store.analytics.expressions import (
    ZERO,
    about,
    day_of,
    intents_about,
    of_period,
    seconds_between,
    within,
)
from app.store.database.tables import approvals, incidents, intents

Row: TypeAlias = tuple[Any, ...]
"""Plain values: a key, then whole numbers."""
Columns: TypeAlias = Sequence[Sequence[Any]]
"""The same rows as one list for each column; none at all without a row."""
By: TypeAlias = Sequence[ColumnElement[Any]]

_DETECT = seconds_between(incidents.c.began_at, incidents.c.opened_at)
_ACKNOWLEDGE = seconds_between(incidents.c.opened_at, incidents.c.acknowledged_at)
_RESTORE = seconds_between(incidents.c.opened_at, incidents.c.restored_at)
_WAIT = seconds_between(approvals.c.requested_at, approvals.c.answered_at)
_PLANNED = intents.c.undoes.is_(None)
_WORKED = incidents.c.worked
_OF_INCIDENT = approvals.c.incident_id == incidents.c.id


@dataclass(frozen=True, slots=True, kw_only=True)
class Slicing:
    """Environment, cause and severity of the counted records of a part."""

    columns: tuple[ColumnElement[Any], ...]
    join: tuple[ColumnElement[bool], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Counting:
    """How one part is counted."""

    key: int
    """How many columns of a row are its key."""
    sums: int = 1
    """How many follow."""
    statement: Callable[[StatsFilter, Sequence[ColumnElement[Any]]], Select[Any]]
    """Grouped by the key, and before it by further columns."""
    slicing: Slicing
    reduced: Callable[[Iterable[Row]], list[Row]] = list
    """Converts the result of the statement to rows."""


def counted_rows(connection: Connection, part: StatsPart, where: StatsFilter) -> list[Row]:
    """The rows of a part, counted from the records."""
    counting = COUNTINGS[part]
    return counting.reduced(_plain(connection, counting.statement(where, ())))


def sliced_rows(
    connection: Connection, part: StatsPart, where: StatsFilter
) -> Iterator[tuple[tuple[str | None, ...], Row]]:
    """The same for each environment, cause and severity, which come first; not reduced."""
    counting = COUNTINGS[part]
    statement = counting.statement(where, counting.slicing.columns).where(*counting.slicing.join)
    for row in _plain(connection, statement):
        yield row[:3], row[3:]


def _plain(connection: Connection, statement: Select[Any]) -> list[Row]:
    """Fetched at once: a row at a time takes several times as long."""
    return [tuple(row) for row in connection.execute(statement).all()]


def columns_of(rows: Iterable[Row]) -> Columns:
    """The rows as columns."""
    return list(zip(*rows, strict=True))


def added(periods: Iterable[Columns], counting: Counting) -> list[Row]:
    """The rows of several periods as one: sums of rows with one key are added."""
    if counting.key == 1 and counting.sums == 1:
        return list(_added_single(periods).items())
    places: dict[Row, int] = {}
    totals: list[list[int]] = [[] for _ in range(counting.sums)]
    for columns in periods:
        # A column at a time: a tuple for the sums of each row takes twice as long.
        keys = zip(*columns[: counting.key], strict=True)
        at = [places.setdefault(key, len(places)) for key in keys]
        for total, column in zip(totals, columns[counting.key :], strict=False):
            total.extend([0] * (len(places) - len(total)))
            for place, number in zip(at, column, strict=True):
                total[place] += number
    return [(*key, *numbers) for key, numbers in zip(places, zip(*totals, strict=True), strict=True)]


def _added_single(periods: Iterable[Columns]) -> dict[Any, int]:
    """The same for rows of two values, of which a year has hundreds of thousands."""
    sums: dict[Any, int] = {}
    get = sums.get
    for columns in periods:
        for key, number in zip(*columns, strict=True):
            sums[key] = get(key, 0) + number
    return sums


def by_week(cells: Columns) -> Columns:
    """The cells with the Monday in place of the day: 1970-01-01 was a Thursday."""
    return [[(day + 3) // 7 * 7 - 3 for day in cells[0]], *cells[1:]] if cells else cells


def quick(connection: Connection) -> None:
    """Have PostgreSQL group in memory, for this transaction."""
    if connection.dialect.name == "postgresql":
        # Groups are few, which the planner cannot know: it would sort every row on disk. Compiling the
        # expressions takes longer than they run.
        connection.execute(text("SET LOCAL work_mem = '64MB'"))
        connection.execute(text("SET LOCAL jit = off"))


def _total(value: ColumnElement[int]) -> ColumnElement[int]:
    """A whole number on PostgreSQL too, where the sum of whole numbers is a decimal one."""
    return cast(func.coalesce(func.sum(value), ZERO), BigInteger)


def _cells(where: StatsFilter, by: By) -> Select[Any]:
    columns = incidents.c
    alike = (
        *by,
        day_of(columns.opened_at),
        columns.state,
        columns.cause,
        columns.runbook,
        columns.worked,
        columns.dry_run,
        columns.judged,
    )
    return (
        select(
            *alike,
            func.count(),
            func.count(columns.began_at),
            _total(_DETECT),
            func.count(columns.acknowledged_at),
            _total(_ACKNOWLEDGE),
            func.count(columns.restored_at),
            _total(_RESTORE),
        )
        .where(*of_period(where))
        .group_by(*alike)
    )


def _services(where: StatsFilter, by: By) -> Select[Any]:
    columns = incidents.c
    alike = (*by, columns.environment, columns.service)
    return (
        select(
            *alike,
            func.count(),
            _total(case((columns.state == IncidentState.RECOVERED.value, 1), else_=ZERO)),
            _total(case((columns.state == IncidentState.ESCALATED.value, 1), else_=ZERO)),
            func.count(columns.restored_at),
            _total(_RESTORE),
        )
        .where(*of_period(where))
        .group_by(*alike)
    )


def _durations(
    length: ColumnElement[int], *among: ColumnElement[bool]
) -> Callable[[StatsFilter, By], Select[Any]]:
    def statement(where: StatsFilter, by: By) -> Select[Any]:
        return select(*by, length, func.count()).where(*of_period(where), *among).group_by(*by, length)

    return statement


def _decided(where: StatsFilter) -> list[ColumnElement[bool]]:
    return [
        *within(where, intents.c.decided_at),
        _PLANNED,
        *intents_about(where),
    ]


def _decisions(where: StatsFilter, by: By) -> Select[Any]:
    columns = intents.c
    alike = (*by, columns.action, columns.decision, columns.result, columns.dry_run)
    return select(*alike, func.count()).where(*_decided(where)).group_by(*alike)


def _reasons(where: StatsFilter, by: By) -> Select[Any]:
    columns = intents.c
    alike = (*by, columns.decision, columns.reason)
    return select(*alike, func.count()).where(*_decided(where), columns.reason.is_not(None)).group_by(*alike)


def _asked(where: StatsFilter) -> list[ColumnElement[bool]]:
    meant = about(where)
    if where.service is not None:
        # Not a join: SQLite would read every approval of the period to find those of one service.
        meant = [approvals.c.incident_id.in_(select(incidents.c.id).where(*meant))]
    elif meant:
        meant = [_OF_INCIDENT, *meant]
    return [*within(where, approvals.c.requested_at), *meant]


def _approvals(where: StatsFilter, by: By) -> Select[Any]:
    alike = (*by, approvals.c.state)
    return select(*alike, func.count()).where(*_asked(where)).group_by(*alike)


def _waits(where: StatsFilter, by: By) -> Select[Any]:
    answered = (approvals.c.answered_at.is_not(None), approvals.c.answered_by.is_not(None))
    return select(*by, _WAIT, func.count()).where(*_asked(where), *answered).group_by(*by, _WAIT)


def _actions(where: StatsFilter, by: By) -> Select[Any]:
    """As the limits count them, by service: what touched a workload and undid nothing."""
    columns = intents.c
    alike = (*by, day_of(columns.started_at), columns.environment, columns.service)
    return (
        select(*alike, func.count())
        .where(
            *within(where, columns.started_at),
            _PLANNED,
            columns.namespace.is_not(None),
            *intents_about(where),
        )
        .group_by(*alike)
    )


def _by_day(rows: Iterable[Row]) -> list[Row]:
    """The sum and the greatest number of each day; no two periods share a day."""
    of_service: Counter[Row] = Counter()
    for *key, number in rows:
        of_service[tuple(key)] += number
    numbers: dict[int, list[int]] = defaultdict(list)
    for (day, *_), number in of_service.items():
        numbers[day].append(number)
    return [(day, sum(found), max(found)) for day, found in numbers.items()]


_INCIDENTS = Slicing(columns=(incidents.c.environment, incidents.c.cause, incidents.c.severity))
_INTENTS = Slicing(
    columns=(intents.c.environment, intents.c.cause, incidents.c.severity),
    join=(intents.c.incident_id == incidents.c.id,),
)
_APPROVALS = Slicing(columns=_INCIDENTS.columns, join=(_OF_INCIDENT,))

COUNTINGS: Mapping[StatsPart, Counting] = {
    StatsPart.CELLS: Counting(key=7, sums=7, statement=_cells, slicing=_INCIDENTS),
    StatsPart.SERVICES: Counting(key=2, sums=5, statement=_services, slicing=_INCIDENTS),
    StatsPart.DETECT: Counting(
        key=1, statement=_durations(_DETECT, incidents.c.began_at.is_not(None)), slicing=_INCIDENTS
    ),
    StatsPart.ACKNOWLEDGE: Counting(
        key=1,
        statement=_durations(_ACKNOWLEDGE, incidents.c.acknowledged_at.is_not(None)),
        slicing=_INCIDENTS,
    ),
    StatsPart.RESTORE: Counting(
        key=1,
        statement=_durations(_RESTORE, incidents.c.restored_at.is_not(None), _WORKED.is_not(True)),
        slicing=_INCIDENTS,
    ),
    StatsPart.HEALED: Counting(
        key=1,
        statement=_durations(_RESTORE, incidents.c.restored_at.is_not(None), _WORKED.is_(True)),
        slicing=_INCIDENTS,
    ),
    StatsPart.DECISIONS: Counting(key=4, statement=_decisions, slicing=_INTENTS),
    StatsPart.REASONS: Counting(key=2, statement=_reasons, slicing=_INTENTS),
    StatsPart.APPROVALS: Counting(key=1, statement=_approvals, slicing=_APPROVALS),
    StatsPart.WAITS: Counting(key=1, statement=_waits, slicing=_APPROVALS),
    StatsPart.ACTIONS: Counting(key=1, sums=2, statement=_actions, slicing=_INTENTS, reduced=_by_day),
}
