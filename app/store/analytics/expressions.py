"""Times in whole seconds, in the SQL of both databases, and the incidents of a period."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, ColumnElement, case, literal_column
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.expression import FunctionElement

from app.agent.analytics.report import StatsFilter
from app.store.database.tables import incidents, intents

_DAY = literal_column("86400", BigInteger)
ZERO = literal_column("0", BigInteger)


class epoch(FunctionElement[int]):  # noqa: N801 - named like the SQL functions beside it
    """The whole seconds of a time since 1970, rounded down."""

    type = BigInteger()
    name = "epoch"
    inherit_cache = True


@compiles(epoch, "sqlite")
def _sqlite(element: epoch, compiler: SQLCompiler, **options: Any) -> str:
    return f"CAST(strftime('%s', {compiler.process(element.clauses, **options)}) AS INTEGER)"


@compiles(epoch, "postgresql")
def _postgresql(element: epoch, compiler: SQLCompiler, **options: Any) -> str:
    # date_part computes with floating point, extract with numeric, which takes several times as long.
    return f"CAST(floor(date_part('epoch', {compiler.process(element.clauses, **options)})) AS BIGINT)"


def seconds_between(begin: ColumnElement[Any], end: ColumnElement[Any]) -> ColumnElement[int]:
    """Whole seconds from one time to the other; 0 where the clock went back, NULL without one of them."""
    length = epoch(end) - epoch(begin)
    return case((length < ZERO, ZERO), else_=length)


def day_of(moment: ColumnElement[Any]) -> ColumnElement[int]:
    """Days since 1970 (UTC)."""
    return epoch(moment) // _DAY


def about(where: StatsFilter) -> list[ColumnElement[bool]]:
    """The filter on incidents, without the time."""
    given = (
        (incidents.c.environment, where.environment),
        (incidents.c.service, where.service),
        (incidents.c.cause, where.cause),
        (incidents.c.severity, where.severity),
    )
    return [column == value for column, value in given if value is not None]


def within(where: StatsFilter, moment: ColumnElement[Any]) -> list[ColumnElement[bool]]:
    """Whether the time lies in the period."""
    return [moment >= where.since, moment < where.until]


def of_period(where: StatsFilter) -> list[ColumnElement[bool]]:
    """The incidents that were opened in the period."""
    return [*within(where, incidents.c.opened_at), *about(where)]


def intents_about(where: StatsFilter) -> list[ColumnElement[bool]]:
    """The intents of those incidents; only the incident has the severity."""
    given = (
        (intents.c.environment, where.environment),
        (intents.c.service, where.service),
        (intents.c.cause, where.cause),
    )
    meant = [column == value for column, value in given if value is not None]
    if where.severity is not None:
        meant += [intents.c.incident_id == incidents.c.id, incidents.c.severity == where.severity]
    return meant
