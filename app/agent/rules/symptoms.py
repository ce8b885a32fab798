"""What is wrong and since when: the onset of the trouble and the rises in the service levels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import accumulate
from math import isfinite
from statistics import fmean, median

from app.agent.models import (
    Alert,
    ClusterCondition,
    Deploy,
    DeployStatus,
    Evidence,
    MetricSample,
    Signal,
    SliSample,
    Trigger,
)
from app.agent.rules.wording import milliseconds, rate, share

CLOCK_SLACK = timedelta(seconds=60)
"""Clocks of pipeline, cluster and monitoring differ, and rates are averages over a window."""

_MIN_SIDE = 2
"""A rise needs this many samples on both sides."""

METRIC_TRIGGERS = frozenset({Trigger.HIGH_ERROR_RATE, Trigger.HIGH_LATENCY})


@dataclass(frozen=True, slots=True, kw_only=True)
class Indicator:
    """One service level indicator, and what counts as a rise of it."""

    name: str
    of: Callable[[SliSample], float | None]
    spoken: Callable[[float], str]
    factor: float
    least: float
    """A rise is at least by this factor and by this much."""


ERROR_RATE = Indicator(name="error rate", of=lambda s: s.error_rate, spoken=share, factor=2.0, least=0.01)
LATENCY = Indicator(
    name="p95 latency", of=lambda s: s.p95_latency_ms, spoken=milliseconds, factor=1.5, least=10.0
)
TRAFFIC = Indicator(name="request rate", of=lambda s: s.request_rate, spoken=rate, factor=1.6, least=0.5)

_BREACHED = {Trigger.HIGH_ERROR_RATE: ERROR_RATE, Trigger.HIGH_LATENCY: LATENCY}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rise:
    """An indicator went from one level to a clearly higher one, and is still there."""

    at: datetime
    base: float
    level: float


def onset(evidence: Evidence) -> datetime:
    """When the trouble was first noticed: by a sample, an alert or the cluster; else the failed deploy."""
    noticed = [s.observed_at for s in evidence.signals if _is_symptom(s)]
    failed = [s.observed_at for s in evidence.signals if failed_deploy(s)]
    return min([*(noticed or failed), evidence.opened_at])


def _is_symptom(signal: Signal) -> bool:
    match signal.payload:
        case MetricSample():
            return True
        case Alert() as alert:
            return alert.firing
        case ClusterCondition() as condition:
            return condition.present
        case _:
            return False


def failed_deploy(signal: Signal) -> bool:
    """A pipeline said that its deploy failed."""
    return isinstance(signal.payload, Deploy) and signal.payload.status is DeployStatus.FAILED


def samples(evidence: Evidence) -> tuple[SliSample, ...]:
    """Measured and pushed service levels together, oldest first, one per instant."""
    found: dict[datetime, SliSample] = {}
    for signal in evidence.signals:
        if isinstance(signal.payload, MetricSample):
            found[signal.observed_at] = SliSample(
                at=signal.observed_at,
                error_rate=signal.payload.error_rate,
                p95_latency_ms=signal.payload.p95_latency_ms,
            )
    found |= {sample.at: sample for sample in evidence.sli}
    return tuple(found[at] for at in sorted(found))


def breached(evidence: Evidence) -> tuple[Indicator, ...]:
    """The indicators that this incident is about."""
    return tuple(_BREACHED[t] for t in sorted(METRIC_TRIGGERS & set(evidence.triggers)))


def metric_onset(evidence: Evidence) -> datetime:
    """When the breached indicators rose, as the series shows; else when the trouble was noticed."""
    rises = [rise(evidence, indicator) for indicator in breached(evidence)]
    found = [r.at for r in rises if r is not None]
    return min(found) if found else onset(evidence)


def trouble_began(evidence: Evidence) -> datetime:
    """The earliest sign of what this incident is about; what changed later did not cause it."""
    if METRIC_TRIGGERS.isdisjoint(evidence.triggers):
        return onset(evidence)
    if METRIC_TRIGGERS.issuperset(evidence.triggers):
        return metric_onset(evidence)
    return min(onset(evidence), metric_onset(evidence))


def levels_around(evidence: Evidence, at: datetime, indicator: Indicator) -> tuple[float, float] | None:
    """Median before and after `at`; None with fewer than three samples on either side."""
    points = _points(evidence, indicator)
    earlier = [v for when, v in points if when <= at]
    later = [v for when, v in points if when > at]
    if len(earlier) < 3 or len(later) < 3:
        return None
    return median(earlier), median(later)


def newest(evidence: Evidence, indicator: Indicator) -> float | None:
    """The newest value of an indicator; None without any."""
    points = _points(evidence, indicator)
    return points[-1][1] if points else None


def rise(evidence: Evidence, indicator: Indicator) -> Rise | None:
    """The one split into two levels that leaves the least squares, if the later level is clearly higher.

    None as well when the newest values are back at the earlier level.
    """
    points = _points(evidence, indicator)
    values = [v for _, v in points]
    splits = range(_MIN_SIDE, len(values) - _MIN_SIDE + 1)
    if not splits:
        return None
    sums = [0.0, *accumulate(values)]
    squares = [0.0, *accumulate(v * v for v in values)]

    def spread(low: int, high: int) -> float:
        total = sums[high] - sums[low]
        return squares[high] - squares[low] - total * total / (high - low)

    split = min(splits, key=lambda i: spread(0, i) + spread(i, len(values)))
    base, level = median(values[:split]), median(values[split:])
    lowest = min(level, fmean(values[-_MIN_SIDE:]))
    if lowest < base * indicator.factor or lowest - base < indicator.least:
        return None
    return Rise(at=points[split][0], base=base, level=level)


def _points(evidence: Evidence, indicator: Indicator) -> list[tuple[datetime, float]]:
    return [(s.at, v) for s in samples(evidence) if (v := indicator.of(s)) is not None and isfinite(v)]
