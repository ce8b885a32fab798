"""Distributions of durations, and shares with their interval of confidence. Pure."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from app.agent.models import Incident, IncidentState

BUCKET_SECONDS = (60, 300, 900, 1800, 3600, 4 * 3600, 12 * 3600, 86400)
"""Upper limits of the bars of a distribution, exclusive; the last bar has none."""

_Z95 = 1.959963984540054


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """How durations in whole seconds are distributed; all but `count` are None without any."""

    count: int
    mean: float | None
    p50: int | None
    p90: int | None
    p95: int | None
    p99: int | None
    longest: int | None
    bars: tuple[int, ...]
    """The number of values below each of `BUCKET_SECONDS` and not below the previous one; the last counts
    the rest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proportion:
    """`hits` of `of`, with the Wilson interval at 95%; None where there is nothing to judge by."""

    hits: int
    of: int
    value: float | None
    low: float | None
    high: float | None


def spread(counted: Iterable[tuple[int, int]]) -> Spread:
    """The distribution of durations given as (seconds, how often); percentiles by nearest rank."""
    ordered = sorted(counted)
    total = sum(often for _, often in ordered)
    bars = [0] * (len(BUCKET_SECONDS) + 1)
    for seconds, often in ordered:
        bars[bisect_right(BUCKET_SECONDS, seconds)] += often
    if not total:
        return Spread(
            count=0, mean=None, p50=None, p90=None, p95=None, p99=None, longest=None, bars=tuple(bars)
        )
    return Spread(
        count=total,
        mean=sum(seconds * often for seconds, often in ordered) / total,
        p50=_ranked(ordered, total, 50),
        p90=_ranked(ordered, total, 90),
        p95=_ranked(ordered, total, 95),
        p99=_ranked(ordered, total, 99),
        longest=ordered[-1][0],
        bars=tuple(bars),
    )


def _ranked(ordered: list[tuple[int, int]], total: int, percent: int) -> int:
    """The smallest value that at least `percent` of all do not exceed."""
    rank, passed = -(-total * percent // 100), 0
    for seconds, often in ordered:
        passed += often
        if passed >= rank:
            return seconds
    return ordered[-1][0]


def share_of(hits: int, of: int) -> Proportion:
    """The share with its Wilson score interval, which holds for few cases and for shares near 0 and 1."""
    if of == 0:
        return Proportion(hits=hits, of=of, value=None, low=None, high=None)
    value, square = hits / of, _Z95 * _Z95
    centre = (value + square / (2 * of)) / (1 + square / of)
    half = _Z95 * math.sqrt(value * (1 - value) / of + square / (4 * of * of)) / (1 + square / of)
    # Exact at the ends, where rounding would leave a tiny rest.
    low = 0.0 if hits == 0 else max(0.0, centre - half)
    high = 1.0 if hits == of else min(1.0, centre + half)
    return Proportion(hits=hits, of=of, value=value, low=low, high=high)


def restored_at(incident: Incident) -> datetime | None:
    """When the service was healthy again, as far as known: the recovery, or the resolution by a person."""
    if incident.state.is_recovery:
        return incident.over_at
    if incident.state is IncidentState.RESOLVED_BY_HAND and incident.resolved is not None:
        return incident.resolved.at
    return None
