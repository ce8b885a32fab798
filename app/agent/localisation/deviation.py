"""How far a series is outside its normal range, in units of its own fault-free spread.

Order statistics replace mean and standard deviation, because a history holds outliers and restarts. A range
over the whole history contains the daily variation of the traffic; a caller that knows the season passes
the range of that season.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median, median_high, median_low

Point = tuple[float, float | None]
"""Unix time in seconds and the value; None if nothing was measured."""

_TAIL = 0.02
"""The share of the history beyond each end of the normal range: one sample of fifty."""

_LEAST_HISTORY = 10
"""With fewer samples the history gives no range."""

_MOST_HISTORY = 800
"""A longer history is thinned out evenly: sixteen samples beyond each end are enough for its range."""

_SCALE_OF_MEDIAN_DISTANCE = 1.4826
"""The standard deviation of a normal distribution, in median absolute distances."""

_RELATIVE_SPREAD = 0.1
"""The least spread as a share of the level: buckets and rounding move a quiet series by less."""

_NEW_SPREAD = 0.2
"""The spread as a share of the peak where the history is a constant zero: five spreads, hence SURE."""

SURE = math.log1p(5)
"""The strength of five spreads outside the range: no further distance makes a series more certain."""

_STRONGEST = math.log1p(100)


@dataclass(frozen=True, slots=True, kw_only=True)
class NormalRange:
    """The fault-free range of a series, in the unit of the metric.

    `low_decile` has a tenth of the history below it; `missing` is the share of times without a value.
    """

    count: int
    median: float
    low: float
    high: float
    spread: float
    low_decile: float
    missing: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Deviation:
    """The deviation of a series from its normal range.

    `strength` is the logarithm of one plus the distance in spreads, 0 inside the range.
    `before` is the normal level, `now` the level of the deviating half of the samples,
    `mean` that of all samples. `dropped` is true where most samples are in the lowest
    tenth of the history, `silent` where a series that has no gaps stopped.
    """

    strength: float
    rises: bool
    before: float
    now: float
    mean: float
    dropped: bool
    silent: bool

    @property
    def added(self) -> float:
        """By how much the series grew, in the unit of the metric."""
        return self.now - self.before


def normal_range(values: Iterable[float | None]) -> NormalRange:
    """The range of a fault-free history; without values, a range with `count` 0."""
    every = list(values)
    present = [value for value in every if value is not None]
    if len(present) > _MOST_HISTORY:
        present = [present[place * len(present) // _MOST_HISTORY] for place in range(_MOST_HISTORY)]
    known = sorted(present)
    if not known:
        return NormalRange(count=0, median=0.0, low=0.0, high=0.0, spread=0.0, low_decile=0.0, missing=1.0)
    last = len(known) - 1
    middle = known[len(known) // 2]
    distances = sorted(abs(value - middle) for value in known)
    low, high = known[round(_TAIL * last)], known[round((1 - _TAIL) * last)]
    return NormalRange(
        count=len(known),
        median=middle,
        low=low,
        high=high,
        spread=max(_SCALE_OF_MEDIAN_DISTANCE * distances[len(known) // 2], (high - low) / 4),
        low_decile=known[round(0.1 * last)],
        missing=every.count(None) / len(every),
    )


def deviation(
    normal: NormalRange | None,
    earlier: Sequence[float],
    during: Sequence[Point],
    least_spread: float = 0.0,
) -> Deviation | None:
    """The deviation of the samples since the symptom; None if no range or no sample is known.

    `earlier` are samples shortly before the symptom: a deviation at that time did not start with the
    symptom, so their median widens the normal range. `least_spread` is in the unit of the metric.
    """
    if normal is not None and normal.count < _LEAST_HISTORY:
        normal = None
    if not during or (normal is None and len(earlier) < 2):
        return None
    low, high, level, spread = _reference(normal, earlier)
    values = [value for _, value in during if value is not None]
    if not values:
        has_gaps = normal is not None and normal.missing > 0.5
        return Deviation(
            strength=0.0,
            rises=False,
            before=level,
            now=level,
            mean=level,
            dropped=False,
            silent=not has_gaps,
        )
    spread = max(spread, _RELATIVE_SPREAD * abs(level), least_spread)
    if spread == 0.0:
        spread = _NEW_SPREAD * max(map(abs, values)) or 1.0
    outside = max(values) > high or min(values) < low
    up = _upper_half([max(0.0, value - high) / spread for value in values]) if outside else 0.0
    down = _upper_half([max(0.0, low - value) / spread for value in values]) if outside else 0.0
    rises = up >= down
    lowest = normal.low_decile if normal is not None else low
    return Deviation(
        strength=min(math.log1p(max(up, down)), _STRONGEST),
        rises=rises,
        before=level,
        now=_upper_half(values) if rises else -_upper_half([-value for value in values]),
        mean=math.fsum(values) / len(values),
        dropped=sum(value < lowest for value in values) > len(values) / 2,
        silent=False,
    )


def _reference(normal: NormalRange | None, earlier: Sequence[float]) -> tuple[float, float, float, float]:
    """Low and high end, level and spread of the normal range just before the symptom.

    If the fault was noticed late, less than half of the earlier samples may already contain it.
    """
    if normal is None:
        return min(earlier), max(earlier), median(earlier), 0.0
    if not earlier:
        return normal.low, normal.high, normal.median, normal.spread
    recent = median(earlier)
    level = normal.median if normal.low <= recent <= normal.high else recent
    low, high = median_low(earlier), median_high(earlier)
    return min(normal.low, low), max(normal.high, high), level, normal.spread


def _upper_half(values: Sequence[float]) -> float:
    """The mean of the larger half: faults may end early, and one sample proves little."""
    half = sorted(values, reverse=True)[: (len(values) + 1) // 2]
    return math.fsum(half) / len(half)
