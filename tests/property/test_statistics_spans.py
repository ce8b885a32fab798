"""Counted days and blocks, and what is counted from the records, cover a period exactly once."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from app.agent.analytics.report import StatsFilter
from app.store.analytics.spans import BLOCK, Span, begin_of, cover

DAY = 20_000
MOMENTS = st.integers(min_value=-40 * 24, max_value=40 * 24).map(
    lambda hours: datetime(2024, 10, 4, tzinfo=UTC) + timedelta(hours=hours)
)
DAYS = st.integers(min_value=DAY - 3 * BLOCK, max_value=DAY + 3 * BLOCK)
BLOCKS = DAYS.map(lambda day: Span(start=day - day % BLOCK, days=BLOCK))


@given(
    between=st.tuples(MOMENTS, MOMENTS).filter(lambda two: two[0] < two[1]),
    holes=st.sets(DAYS, max_size=20),
    blocks=st.sets(BLOCKS, max_size=4),
    stale=st.sets(DAYS, max_size=3),
)
def test_a_period_is_covered_exactly_once(
    between: tuple[datetime, datetime], holes: set[int], blocks: set[Span], stale: set[int]
) -> None:
    """Spans and periods follow each other from begin to end; no day that changed is in a span."""
    where = StatsFilter(since=between[0], until=between[1])
    days = {Span(start=day) for day in range(DAY - 3 * BLOCK, DAY + 3 * BLOCK) if day not in holes}
    spans, gaps = cover(where, days | blocks, stale)
    pieces = [(begin_of(span.start), begin_of(span.start + span.days)) for span in spans]
    pieces = sorted([*pieces, *((gap.since, gap.until) for gap in gaps)])
    assert pieces[0][0] == where.since
    assert pieces[-1][1] == where.until
    assert all(before[1] == after[0] for before, after in itertools.pairwise(pieces))
    assert all(begin < end for begin, end in pieces)
    covered = {day for span in spans for day in range(span.start, span.start + span.days)}
    assert not covered & stale
    within = {
        day.start
        for day in days
        if where.since <= begin_of(day.start) < begin_of(day.start + 1) <= where.until
    }
    assert within - stale <= covered


def test_the_first_and_the_last_year_are_periods_as_well() -> None:
    """Nothing is counted there, and no date overflows."""
    where = StatsFilter(since=datetime(1, 1, 1, tzinfo=UTC), until=datetime(9999, 12, 31, 23, tzinfo=UTC))
    assert cover(where, [], []) == ([], [where])
