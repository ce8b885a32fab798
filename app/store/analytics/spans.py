"""Which counted days and blocks cover a period, and what of it is counted from the records. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from app.agent.analytics.report import StatsFilter

BLOCK = 32
"""Days of a block; blocks begin at multiples of it since 1970."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY = timedelta(days=1)
_SLICED = ("environment", "cause", "severity")
WHOLE = ""
"""The slice of all incidents."""


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
    """The slice that a filter means; None for one that is not kept."""
    given = {name: getattr(where, name) for name in _SLICED if getattr(where, name) is not None}
    if where.service is not None or len(given) > 1:
        return None
    return next((_named(name, value) for name, value in given.items()), WHOLE)


def slices_of(*values: str | None) -> list[str]:
    """The slices of environment, cause and severity, and that of all."""
    return [WHOLE, *(_named(*one) for one in zip(_SLICED, values, strict=True) if one[1] is not None)]


def _named(name: str, value: str | None) -> str:
    return f"{name}={value}"


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
