"""The anomalies of each service: its series, combined by kind of metric."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median

from app.agent.localisation.deviation import Deviation, Point, deviation
from app.agent.localisation.metric_kinds import MetricKind, MetricMeaning, meaning_of
from app.agent.localisation.system import ObservedSystem, SeriesKey

_USUAL_INTERVAL_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviatingSeries:
    """A series with its meaning and its deviation."""

    metric: str
    meaning: MetricMeaning
    deviation: Deviation

    @property
    def towards_fault(self) -> bool:
        return self.deviation.rises is not self.meaning.falls_in_fault


@dataclass(slots=True)
class ServiceAnomalies:
    """The deviations of one service, by kind of metric."""

    by_kind: dict[MetricKind, list[DeviatingSeries]] = field(default_factory=dict)
    silent: bool = False
    _rises: dict[MetricKind, float] = field(default_factory=dict)

    @property
    def measured(self) -> bool:
        return bool(self.by_kind)

    def has(self, kind: MetricKind) -> bool:
        return kind in self.by_kind

    def rise(self, kind: MetricKind) -> float:
        """How strongly a kind of metric moved towards a fault: the mean of its two strongest series."""
        found = self._rises.get(kind)
        if found is None:
            strengths = sorted(
                (s.deviation.strength if s.towards_fault else 0.0 for s in self.by_kind.get(kind, ())),
                reverse=True,
            )[:2]
            found = self._rises[kind] = math.fsum(strengths) / len(strengths) if strengths else 0.0
        return found

    def added(self, kind: MetricKind) -> dict[float, float]:
        """By how much each statistic of a kind moved towards a fault, in the unit of the metric."""
        return {
            s.meaning.statistic: -s.deviation.added if s.meaning.falls_in_fault else s.deviation.added
            for s in self.by_kind.get(kind, ())
        }

    @property
    def requests(self) -> Deviation | None:
        found = self.by_kind.get(MetricKind.REQUESTS)
        return found[0].deviation if found else None

    @property
    def usual_requests(self) -> float | None:
        """The normal number of requests, in the unit of the metric; None where it is not measured."""
        return None if self.requests is None else self.requests.before

    def strongest(self, kind: MetricKind) -> DeviatingSeries | None:
        """The series of a kind that moved most towards a fault."""
        found = [s for s in self.by_kind.get(kind, ()) if s.towards_fault and s.deviation.strength > 0]
        return max(found, key=lambda s: s.deviation.strength, default=None)


Anomalies = Mapping[str, ServiceAnomalies]


def anomalies_of(system: ObservedSystem, services: Iterable[str]) -> dict[str, ServiceAnomalies]:
    """Each service with its anomalies."""
    found = {service: ServiceAnomalies() for service in services}
    interval = _interval_seconds(system.series)
    silences: dict[str, list[bool]] = {}
    for (service, metric), points in sorted(system.series.items(), key=lambda item: item[0][1]):
        meaning = meaning_of(metric)
        earlier, during = _split(points, system.started_at, interval)
        measured = deviation(
            system.normal.get((service, metric)), earlier, during, least_spread=meaning.least_spread
        )
        if measured is None or service not in found:
            continue
        silences.setdefault(service, []).append(measured.silent)
        if not measured.silent:
            series = DeviatingSeries(metric=metric, meaning=meaning, deviation=measured)
            found[service].by_kind.setdefault(meaning.kind, []).append(series)
    speaking = any(not all(silent) for silent in silences.values())
    for service, silent in silences.items():
        # Every series of every service missing is a fault of the telemetry, not of a service (promise 8).
        found[service].silent = speaking and all(silent)
    return found


def _interval_seconds(series: Mapping[SeriesKey, Sequence[Point]]) -> float:
    """The usual time between two samples."""
    gaps = [b[0] - a[0] for points in series.values() for a, b in pairwise(points)]
    return median(gaps) if gaps else _USUAL_INTERVAL_SECONDS


def _split(points: Sequence[Point], started_at: float, interval: float) -> tuple[list[float], list[Point]]:
    """The known values before the symptom, and the samples since.

    A sample that is less than half an interval old when the symptom becomes known may
    already contain it, because a fault precedes its symptom and some sources summarise
    the interval after a sample's time: it belongs to neither side.
    """
    earlier = [value for at, value in points if at < started_at - interval / 2 and value is not None]
    return earlier, [point for point in points if point[0] >= started_at]
