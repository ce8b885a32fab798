"""Roll-ups: each ended day is counted once, and a report adds the days up.

They are stored in slices: all incidents, and the incidents of each environment, cause and severity, alone
and combined. Triggers of the database note a change of a day that was counted (`statistics_stale`); such a
day, and its block, are not used until the day is counted again. On PostgreSQL a change takes a shared lock
on its day and counting an exclusive one, so counting never misses a change whose transaction has not ended.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import Connection, and_, delete, func, insert, or_, select

from app.agent.analytics.report import StatsFilter, StatsPart
from app.agent.analytics.shadow import JUDGED_AFTER
from app.store.analytics.counting import (
    COUNTINGS,
    Columns,
    Row,
    added,
    by_week,
    columns_of,
    counted_rows,
    quick,
    sliced_rows,
)
from app.store.analytics.spans import (
    BLOCK,
    COMBINED,
    Span,
    begin_of,
    block_of,
    cover,
    day_at,
    is_combined,
    slice_of,
    slices_of,
    whole_days,
)
from app.store.database import locks
from app.store.database.tables import (
    incidents,
    statistics_parts,
    statistics_spans,
    statistics_stale,
)

SETTLED_AFTER = JUDGED_AFTER
"""A day is counted so long after its end: most of its incidents have ended and are judged."""
_MARK = StatsPart.DETECT
"""The part whose form the mark of `COMBINED` has."""
MOST_STALE = 3
"""Days that changed since they were counted, and are counted again for a report; sweeps count the others."""
_LONGEST_BACK = timedelta(days=3 * 366)
"""Older days are counted from the records."""


def counted_parts(
    connection: Connection, where: StatsFilter, parts: Collection[StatsPart]
) -> tuple[Mapping[StatsPart, list[Row]], int]:
    """The rows of each part, and the number of days for which they are from the last count.

    They are sums of roll-ups and of counts from the records. Of the days that changed since their count,
    the newest `MOST_STALE` are counted from the records.
    """
    quick(connection)
    outdated = 0
    spans: list[Span] = []
    gaps = [where]
    kept = slice_of(where)
    if kept is not None:
        counted, stale = _counted_within(connection, whole_days(where))
        if is_combined(kept):
            counted = _combined(connection, counted)
        outdated = max(0, len(stale) - MOST_STALE)
        spans, gaps = cover(where, counted, sorted(stale)[outdated:])
    found: dict[StatsPart, list[Columns]] = {part: [] for part in parts}
    for gap in gaps:
        # One statement each: with its bounds at hand, PostgreSQL knows how little there is to read.
        for part, each in found.items():
            each.append(columns_of(counted_rows(connection, part, gap)))
    if kept is not None and spans:
        for part, columns in _stored(connection, spans, kept, parts):
            found[part].append(columns)
    if where.weekly and StatsPart.CELLS in found:
        found[StatsPart.CELLS] = list(map(by_week, found[StatsPart.CELLS]))
    return {part: added(periods, COUNTINGS[part]) for part, periods in found.items()}, outdated


def _counted_within(connection: Connection, days: range) -> tuple[list[Span], set[int]]:
    """Complete spans, and the days that changed since they were counted."""
    spans = statistics_spans.c
    rows = connection.execute(
        select(spans.start, spans.days).where(
            spans.start >= days.start, spans.start + spans.days <= days.stop
        )
    )
    stale = connection.execute(
        select(statistics_stale.c.day)
        .where(statistics_stale.c.day >= days.start, statistics_stale.c.day < days.stop)
        .distinct()
    )
    return [Span(start=row.start, days=row.days) for row in rows], {row.day for row in stale}


def _stored(
    connection: Connection, spans: Collection[Span], kept: str, parts: Collection[StatsPart]
) -> Iterable[tuple[StatsPart, Columns]]:
    """What is kept of these spans; a span without any of a part has none in that slice."""
    for _, part, body in _bodies(connection, spans, kept, parts):
        yield part, _columns(body)


def _bodies(
    connection: Connection, spans: Collection[Span], kept: str, parts: Collection[StatsPart]
) -> Iterable[tuple[Span, StatsPart, str]]:
    """By the primary key, which begins with span and slice."""
    columns = statistics_parts.c
    for days in sorted({span.days for span in spans}):
        rows = connection.execute(
            select(columns.start, columns.part, columns.body).where(
                columns.start.in_([span.start for span in spans if span.days == days]),
                columns.days == days,
                columns.slice == kept,
                columns.part.in_([part.value for part in parts]),
            )
        )
        for row in rows:
            yield Span(start=row.start, days=days), StatsPart(row.part), row.body


def _combined(connection: Connection, spans: Collection[Span]) -> list[Span]:
    """The spans all of whose days were counted in combined slices too."""
    marks = _bodies(connection, spans, COMBINED, [_MARK])
    return [span for span, _, body in marks if sum(_columns(body)[1]) == span.days]


def _columns(body: str) -> Columns:
    """As `_store` writes them."""
    return msgspec.json.decode(body, type=list[list[Any]])


# ---------------------------------------------------------------- counting


def due_days(connection: Connection, now: datetime, most: int) -> list[int]:
    """Days that are over and not counted, or changed since; the newest first."""
    oldest = connection.execute(select(func.min(incidents.c.opened_at))).scalar_one()
    if oldest is None:
        return []
    stop = day_at(now - SETTLED_AFTER)
    days = range(day_at(max(oldest, now - _LONGEST_BACK)), stop)
    spans, stale = _counted_within(connection, days)
    done = {span.start for span in _combined(connection, spans) if span.days == 1} - stale
    return [day for day in reversed(days) if day not in done][:most]


def count_day(connection: Connection, day: int) -> bool:
    """Count a day in all its slices and replace the previous counts; false while the day changes."""
    locks.hold(connection, locks.Space.COUNTED_BLOCK, [str(block_of(day).start)])
    if not locks.take(connection, locks.Space.COUNTED_DAY, day):
        return False
    for table in (statistics_parts, statistics_spans):
        of_day = and_(table.c.start == day, table.c.days == 1)
        of_block = and_(table.c.start == block_of(day).start, table.c.days == BLOCK)
        connection.execute(delete(table).where(or_(of_day, of_block)))
    connection.execute(delete(statistics_stale).where(statistics_stale.c.day == day))
    quick(connection)
    span = Span(start=day)
    where = span.within(StatsFilter(since=begin_of(day), until=begin_of(day)))
    counted: dict[str, dict[StatsPart, list[Columns]]] = defaultdict(lambda: defaultdict(list))
    for part in StatsPart:
        found: dict[str, list[Row]] = defaultdict(list)
        for values, row in sliced_rows(connection, part, where):
            for kept in slices_of(*values):
                found[kept].append(row)
        for kept, mine in found.items():
            counted[kept][part] = [columns_of(COUNTINGS[part].reduced(mine))]
    # One row that blocks add up: a block is complete in combined slices when all its days are.
    counted[COMBINED][_MARK] = [columns_of([(0, 1)])]
    _store(connection, span, counted)
    return True


def add_up_block(connection: Connection, block: Span) -> bool:
    """Add up the days of a block; false if it is not complete or added up already."""
    locks.hold(connection, locks.Space.COUNTED_BLOCK, [str(block.start)])
    spans, stale = _counted_within(connection, range(block.start, block.start + BLOCK))
    if stale or block in spans or len(spans) < BLOCK:
        return False
    columns = statistics_parts.c
    counted: dict[str, dict[StatsPart, list[Columns]]] = defaultdict(lambda: defaultdict(list))
    for row in connection.execute(
        select(columns.slice, columns.part, columns.body).where(
            columns.start >= block.start, columns.start < block.start + BLOCK, columns.days == 1
        )
    ):
        counted[row.slice][StatsPart(row.part)].append(_columns(row.body))
    _store(connection, block, counted)
    return True


def _store(
    connection: Connection, span: Span, counted: Mapping[str, Mapping[StatsPart, Iterable[Columns]]]
) -> None:
    """Add up what was counted of each slice and part, and keep it."""
    connection.execute(insert(statistics_spans).values(start=span.start, days=span.days))
    values = [
        {
            "start": span.start,
            "days": span.days,
            "slice": kept,
            "part": part.value,
            "body": msgspec.json.encode(columns_of(added(each, COUNTINGS[part]))).decode(),
        }
        for kept, parts in counted.items()
        for part, each in parts.items()
    ]
    if values:
        connection.execute(insert(statistics_parts), values)
