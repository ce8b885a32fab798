"""The counted days and blocks that cover a period, and the part to count from the records. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import combinations

from app.agent.analytics.report import StatsFilter

BLOCK = 32
"""Days in a block; blocks begin at multiples of it since 1970."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY = timedelta(days=1)
_SLICED = ("environment", "cause", "severity")
_AND = "\x1f"
"""Between the filters of a combined slice; no environment contains it."""
COMBINED = "combined"
"""Not a slice of incidents: it counts the days that were counted in combined slices too."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Span:
    """Whole days in UTC."""

    start: int
    """The first day, since 1970."""
    days: int = 1

    def within(self, where: StatsFilter) -> StatsFilter:
        """The filter over these days."""
        return replace(where, since=begin_of(self.start), until=begin_of(self.start + self.days))


def begin_of(day: int) -> datetime:
    return _EPOCH + day * _DAY


def day_at(moment: datetime) -> int:
    """The day since 1970 in which the moment lies."""
    return (moment - _EPOCH) // _DAY


def block_of(day: int) -> Span:
    return Span(start=day - day % BLOCK, days=BLOCK)


def slice_of(where: StatsFilter) -> str | None:
    """The slice that a filter means; None for one of a service, whose incidents are few."""
    if where.service is not None:
        return None
    return _named((name, getattr(where, name)) for name in _SLICED)


def is_combined(kept: str) -> bool:
    """Whether a slice is of two filters or more: programs before 0.3.0 did not count those."""
    return _AND in kept


def slices_of(*values: str | None) -> list[str]:
    """The slices of environment, cause and severity, of each combination of them, and that of all."""
    given = [one for one in zip(_SLICED, values, strict=True) if one[1] is not None]
    return [_named(some) for length in range(len(given) + 1) for some in combinations(given, length)]


def _named(given: Iterable[tuple[str, str | None]]) -> str:
    return _AND.join(f"{name}={value}" for name, value in given if value is not None)


def whole_days(where: StatsFilter) -> range:
    """The days that lie in the period from begin to end."""
    return range(-((_EPOCH - where.since) // _DAY), day_at(where.until))


def cover(
    where: StatsFilter, counted: Collection[Span], stale: Collection[int]
) -> tuple[list[Span], list[StatsFilter]]:
    """The spans to add up, blocks before their days; and the periods between them, with the same filter."""
    days = whole_days(where)
    fresh = {
        span
        for span in counted
        if days.start <= span.start
        and span.start + span.days <= days.stop
        and not any(span.start <= day < span.start + span.days for day in stale)
    }
    taken = [span for span in sorted(fresh) if span.days == BLOCK or block_of(span.start) not in fresh]
    return taken, list(_between(where, taken))


def _between(where: StatsFilter, taken: list[Span]) -> Iterator[StatsFilter]:
    since = where.since
    for span in taken:
        begin = begin_of(span.start)
        if since < begin:
            yield replace(where, since=since, until=begin)
        since = begin_of(span.start + span.days)
    if since < where.until:
        yield replace(where, since=since)
