"""The contract of roll-ups: counting whole days once changes no number, whatever is written afterwards."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Select, Table, and_, delete, func, or_, select, text, update
from sqlalchemy.sql import visitors

from app.agent.analytics.report import Statistics, StatsFilter, StatsPart, report
from app.agent.ports.store import Store
from app.store import open_store
from app.store.analytics import rollups
from app.store.analytics.counting import COUNTINGS, counted_rows
from app.store.analytics.reading import counted_of
from app.store.analytics.rollups import SETTLED_AFTER
from app.store.analytics.spans import BLOCK, COMBINED, begin_of, block_of, day_at
from app.store.database.tables import (
    approvals,
    incidents,
    intents,
    statistics_parts,
    statistics_spans,
    statistics_stale,
)
from tests.contract.store_values import NOW, Deciding, signal
from tests.contract.test_store_database import engine_of
from tests.contract.test_store_statistics import FILTERS, history

pytest_plugins = ["tests.contract.postgres", "tests.contract.stores"]

MIGRATION = importlib.import_module("app.store.migrations.versions.v0009_roll_ups")
FIXED = {"id", "incident_id", "opened_at", "requested_at"}
"""Columns that are counted by and that no statement changes."""
WRITTEN: dict[str, dict[str, str]] = {
    "incidents": {
        "state": "'recovered_without_action'",
        "cause": "'memory_leak'",
        "severity": "'minor'",
        "runbook": "'another@9'",
        "worked": "NOT worked",
        "dry_run": "NOT dry_run",
        "judged": "'contradicted'",
        "began_at": "opened_at",
        "acknowledged_at": "opened_at",
        "restored_at": "opened_at",
    },
    "intents": {
        "undoes": "'int_other'",
        "started_at": "decided_at",
        "dry_run": "NOT dry_run AND state <> 'executing'",
        "environment": "'elsewhere'",
        "service": "'another'",
        "namespace": "NULL",
        "cause": "'memory_leak'",
        "action": "'scale'",
        "decision": "'needs_approval'",
        "decided_at": "NULL",
        "reason": "'another'",
        "result": "'unknown'",
    },
    "approvals": {"state": "'expired'", "answered_at": "NULL", "answered_by": "NULL"},
}
"""A value for each column that differs from what `history` writes in some row."""


def _by_records(connection: Connection, where: StatsFilter) -> Statistics:
    """The report without roll-ups."""
    return report(where, counted_of({part: counted_rows(connection, part, where) for part in StatsPart}))


async def _agrees(store: Store, database_url: str, period: Mapping[str, Any]) -> None:
    for given in FILTERS[1:6]:
        where = StatsFilter(**{**period, **given})
        with engine_of(database_url).connect() as connection:
            assert report(where, await store.statistics.counted(where)) == _by_records(connection, where)


async def _rolled_up(store: Store, days: int) -> int:
    """Count every day before NOW + days; how many were counted."""
    total, until = 0, begin_of(day_at(NOW) + days) + SETTLED_AFTER
    while done := await store.statistics.roll_up(until):
        total += done
    return total


def _number(database_url: str, table: Table) -> int:
    with engine_of(database_url).connect() as connection:
        return int(connection.execute(select(func.count()).select_from(table)).scalar_one())


async def test_a_report_is_the_same_with_roll_ups_and_after_any_change(
    store: Store, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Days and blocks are added up; what any program changes afterwards is in the next report."""
    monkeypatch.setattr(rollups, "MOST_STALE", 1000)
    await history(store, seed=11, size=20)
    days = block_of(day_at(NOW) + BLOCK).start + BLOCK - day_at(NOW)
    assert await _rolled_up(store, days) >= BLOCK
    period = {"since": NOW - timedelta(days=3), "until": NOW + timedelta(days=days + 2, hours=5)}
    with engine_of(database_url).begin() as connection:
        blocks = connection.execute(select(statistics_spans.c.start).where(statistics_spans.c.days == BLOCK))
        assert blocks.all()
    await _agrees(store, database_url, period)
    with engine_of(database_url).begin() as connection:
        for table, values in WRITTEN.items():
            assert set(values) == set(MIGRATION._COUNTED[table]), table
            for column, value in values.items():
                connection.execute(statistics_stale.delete())
                connection.execute(text(f"UPDATE {table} SET {column} = {value}"))  # noqa: S608
                assert connection.execute(select(statistics_stale)).first(), (table, column)
    # The notes of all but the last change are gone: as if the days had been counted between.
    with engine_of(database_url).begin() as connection:
        connection.execute(text("UPDATE incidents SET state = 'open'"))
        connection.execute(text("UPDATE intents SET dry_run = NOT dry_run, decided_at = started_at"))
        connection.execute(text("UPDATE approvals SET state = 'denied'"))
    await store.signals.accept([signal(at=NOW + timedelta(hours=1))], Deciding(), dry_run=False)
    await _agrees(store, database_url, period)
    assert await _rolled_up(store, days) > 0
    await _agrees(store, database_url, period)


async def test_what_many_changed_days_cost_is_bounded(
    store: Store, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest are counted again for the report, the others are as last counted, and the report says so."""
    monkeypatch.setattr(rollups, "MOST_STALE", 4)
    await history(store, seed=11, size=20)
    days = block_of(day_at(NOW) + BLOCK).start + BLOCK - day_at(NOW)
    await _rolled_up(store, days)
    where = StatsFilter(since=NOW - timedelta(days=3), until=NOW + timedelta(days=days))
    before = report(where, await store.statistics.counted(where))
    assert before.outdated == 0
    with engine_of(database_url).begin() as connection:
        connection.execute(text("UPDATE incidents SET severity = 'minor', cause = 'memory_leak'"))
        changed = connection.execute(select(statistics_stale.c.day).distinct()).scalars().all()
    assert len(changed) > rollups.MOST_STALE
    after = report(where, await store.statistics.counted(where))
    assert after.outdated == len(changed) - rollups.MOST_STALE
    assert after.ends.incidents == before.ends.incidents
    assert len(after.causes) > 1, "older days are as they were counted"
    newest = replace(where, since=begin_of(sorted(changed)[-rollups.MOST_STALE]))
    with engine_of(database_url).connect() as connection:
        assert report(newest, await store.statistics.counted(newest)) == _by_records(connection, newest)
    assert await _rolled_up(store, days) > 0
    with engine_of(database_url).connect() as connection:
        exact = _by_records(connection, where)
    assert report(where, await store.statistics.counted(where)) == exact
    assert [cause for cause, _ in exact.causes] == ["memory_leak"]


async def test_a_report_reads_what_was_rolled_up(store: Store, database_url: str) -> None:
    """Records of a counted day are not read again; what is not asked for is not counted."""
    await history(store, seed=1, size=3)
    await _rolled_up(store, 10)
    where = StatsFilter(since=NOW - timedelta(days=1), until=NOW + timedelta(days=10))
    assert sum(one.incidents for one in (await store.statistics.counted(where)).cells) == 3
    only = await store.statistics.counted(where, (StatsPart.CELLS,))
    assert only.cells
    assert (only.services, only.decisions, only.restore) == ((), (), ())
    with engine_of(database_url).begin() as connection:
        connection.execute(statistics_parts.delete())
    assert (await store.statistics.counted(where)).cells == ()


async def test_combined_filters_do_not_miss_days_that_an_earlier_program_counted(
    store: Store, database_url: str
) -> None:
    """Such days lack the combined slices: they are read from the records, and counted again."""
    await history(store, seed=11, size=20)
    days = block_of(day_at(NOW) + BLOCK).start + BLOCK - day_at(NOW)
    counted = await _rolled_up(store, days)
    since, until = NOW - timedelta(days=3), NOW + timedelta(days=days + 2, hours=5)
    two = StatsFilter(since=since, until=until, environment="prod", severity="minor")
    earlier = or_(statistics_parts.c.slice.contains("\x1f"), statistics_parts.c.slice == COMBINED)
    with engine_of(database_url).begin() as connection:
        expected = _by_records(connection, two)
        assert expected.ends.incidents > 0
        # A block that an earlier program adds up counts the marks of the days that have one.
        of_days = and_(earlier, statistics_parts.c.days == 1, statistics_parts.c.start % 2 == 0)
        connection.execute(delete(statistics_parts).where(of_days))
        marks = and_(statistics_parts.c.days == BLOCK, statistics_parts.c.slice == COMBINED)
        connection.execute(update(statistics_parts).where(marks).values(body=f"[[0],[{BLOCK // 2}]]"))
        combined = and_(statistics_parts.c.days == BLOCK, statistics_parts.c.slice.contains("\x1f"))
        connection.execute(delete(statistics_parts).where(combined))
    assert report(two, await store.statistics.counted(two)) == expected
    assert 0 < await _rolled_up(store, days) < counted
    assert report(two, await store.statistics.counted(two)) == expected


async def test_a_day_that_changes_is_counted_again_and_only_that_day(store: Store, database_url: str) -> None:
    """Its note is removed with the new count; a later sweep finds nothing to do."""
    await history(store, seed=1, size=3)
    days = 10
    assert await _rolled_up(store, days) > 5
    with engine_of(database_url).begin() as connection:
        connection.execute(
            text(
                "UPDATE incidents SET state = 'proposed'"
                " WHERE opened_at = (SELECT min(opened_at) FROM incidents)"
            )
        )
    assert _number(database_url, statistics_stale) == 1
    assert await _rolled_up(store, days) == 1
    assert _number(database_url, statistics_stale) == 0
    assert await _rolled_up(store, days) == 0


async def test_a_day_is_not_counted_while_a_change_of_it_is_under_way(postgres_url: str) -> None:
    """Otherwise the count would miss it, and no note would say so."""
    shared, over = await open_store(postgres_url), begin_of(day_at(NOW) + 1) + SETTLED_AFTER
    await shared.signals.accept([signal(at=NOW)], Deciding(), dry_run=False)
    with engine_of(postgres_url).connect() as connection:
        changing = connection.begin()
        connection.execute(text("UPDATE incidents SET state = 'escalated'"))
        assert await shared.statistics.roll_up(over) == 0
        changing.commit()
    assert await shared.statistics.roll_up(over) == 1
    where = StatsFilter(since=NOW - timedelta(days=1), until=NOW + timedelta(days=1))
    assert report(where, await shared.statistics.counted(where)).ends.escalated == 1
    await shared.close()


@pytest.mark.parametrize("part", StatsPart)
def test_every_column_that_is_counted_makes_its_day_stale(part: StatsPart) -> None:
    """A column that a statement reads and no trigger watches would be counted once and never again."""
    where = StatsFilter(
        since=NOW, until=NOW, environment="prod", service="shop", cause=None, severity="minor"
    )
    counting = COUNTINGS[part]
    for column in _columns(counting.statement(where, counting.slicing.columns)):
        watched = {*MIGRATION._COUNTED[column[0]], *FIXED}
        if column[0] == "incidents":
            watched |= {"environment", "service"}
        assert column[1] in watched, column


def _columns(statement: Select[Any]) -> Iterable[tuple[str, str]]:
    for element in visitors.iterate(statement):
        table = getattr(element, "table", None)
        if table in (incidents, intents, approvals):
            yield table.name, str(element.name)  # type: ignore[attr-defined]
