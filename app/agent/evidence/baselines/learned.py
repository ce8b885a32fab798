"""The usual levels of a service: a baseline of each metric, learned while measuring.

A baseline is a histogram on a logarithmic scale: quantiles are within 7%, an outlier moves no quantile, and
a series takes 400 bytes of counts, regardless of the length of observation. Counts are halved from time to
time, so that the usual level can change within a day.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import ClassVar

from app.agent.evidence.baselines.comparison import unusual
from app.agent.evidence.symptoms import ERROR_RATE, LATENCY, TRAFFIC, SymptomIndicator
from app.agent.ids import ServiceKey
from app.agent.models import SliSample, UsualLevel

LEAST_SAMPLES = 120
LEAST_AGE = timedelta(hours=1)
"""The warm-up after a start: with fewer samples, or over less time, there is no baseline."""

_BUCKETS = 100
_GROWTH = math.log(1.15)
_HALVED_AT = 4096.0
"""About seventeen hours of samples that come every 15 seconds."""

_UNUSUAL_WEIGHT = 0.1
"""An incident of an hour does not become usual, another level of a day does."""

_REFRESHED_EVERY = 20
"""A level is computed again every so many samples."""

_LEAST = {ERROR_RATE.name: 1e-4, LATENCY.name: 0.1, TRAFFIC.name: 0.01}
"""Smaller values count as this one, in the unit of the metric."""


@dataclass(slots=True)
class _Histogram:
    """The histogram of one metric of one service."""

    least: float
    since: datetime
    counts: array[float] = field(default_factory=lambda: array("f", bytes(4 * _BUCKETS)))
    total: float = 0.0
    samples: int = 0

    level: UsualLevel | None = None
    """As of up to `_REFRESHED_EVERY` samples ago; None during the warm-up."""

    def add(self, key: ServiceKey, indicator: SymptomIndicator, at: datetime, value: float) -> None:
        outside = self.level is not None and unusual(self.level, indicator, value)
        weight = _UNUSUAL_WEIGHT if outside else 1.0
        place = (math.log(max(value, self.least)) - math.log(self.least)) / _GROWTH
        self.counts[min(int(place), _BUCKETS - 1)] += weight
        self.total += weight
        self.samples += 1
        warm = self.samples >= LEAST_SAMPLES and at - self.since >= LEAST_AGE
        if warm and (self.level is None or self.samples % _REFRESHED_EVERY == 0):
            self.level = self._level(key, indicator, at)
        if self.total >= _HALVED_AT:
            self.counts = array("f", (count / 2 for count in self.counts))
            self.total /= 2

    def quantile(self, share: float) -> float:
        left = share * self.total
        for place, count in enumerate(self.counts):
            left -= count
            if left <= 0 and count:
                return self._middle(place)
        return self._middle(_BUCKETS - 1)

    def _level(self, key: ServiceKey, indicator: SymptomIndicator, at: datetime) -> UsualLevel:
        return UsualLevel(
            key=key,
            indicator=indicator.name,
            median=self.quantile(0.5),
            often=self.quantile(0.9),
            high=self.quantile(0.98),
            observed_for=at - self.since,
        )

    def _middle(self, place: int) -> float:
        return 0.0 if place == 0 else self.least * math.exp((place + 0.5) * _GROWTH)


@dataclass(slots=True)
class Baselines:
    """The baselines of the services that this process measures; empty after a restart."""

    _known: dict[ServiceKey, dict[str, _Histogram]] = field(default_factory=dict)
    _indicators: ClassVar[tuple[SymptomIndicator, ...]] = (ERROR_RATE, LATENCY, TRAFFIC)

    def learn(self, key: ServiceKey, sample: SliSample) -> None:
        """Count a measurement; missing and non-finite values are ignored."""
        series = self._known.setdefault(key, {})
        for indicator in self._indicators:
            value = indicator.of(sample)
            if value is None or not math.isfinite(value):
                continue
            if indicator.name not in series:
                series[indicator.name] = _Histogram(_LEAST[indicator.name], sample.at)
            series[indicator.name].add(key, indicator, sample.at, value)

    def keep(self, keys: Collection[ServiceKey]) -> None:
        """Forget the services that are not among these."""
        for key in self._known.keys() - set(keys):
            del self._known[key]

    def usual(self, keys: Collection[ServiceKey]) -> tuple[UsualLevel, ...]:
        """The baselines of these services; none during the warm-up of a series."""
        return tuple(
            series.level
            for key in keys
            for series in self._known.get(key, {}).values()
            if series.level is not None
        )
