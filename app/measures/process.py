"""Metrics of this process: counters and histograms that its parts write.

Each process has a registry of its own, so that several agents in one interpreter
(tests, simulations) do not share counts. Labels have few values: a route is its
template and a peer its name, never a service, an incident or a person.
"""

from __future__ import annotations

import collections
from bisect import bisect_left
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import accumulate

from prometheus_client import (
    CollectorRegistry,
    Counter,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from app.agent.models import DispositionKind

_PASS_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_REQUEST_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)


class Requests(Collector):
    """Answered requests, counted and timed by plain numbers: intake answers thousands in a second.

    The metric families are made when they are scraped.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._answered: dict[tuple[str, str, int], int] = {}
        """By method, route template and status."""
        self._times: dict[str, list[int]] = {}
        """By route: how many requests fall into each bucket, in the order of the buckets."""
        self._seconds: dict[str, float] = {}
        registry.register(self)

    def note(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one; only ever called on the event loop."""
        kind = (method, route, status)
        self._answered[kind] = self._answered.get(kind, 0) + 1
        times = self._times.get(route)
        if times is None:
            times = self._times[route] = [0] * (len(_REQUEST_BUCKETS) + 1)
            self._seconds[route] = 0.0
        times[bisect_left(_REQUEST_BUCKETS, seconds)] += 1
        self._seconds[route] += seconds

    def collect(self) -> Iterable[Metric]:
        answered = CounterMetricFamily(
            "heal_http_requests", "Requests answered by this process.", labels=("method", "route", "status")
        )
        for (method, route, status), count in self._answered.items():
            answered.add_metric((method, route, str(status)), count)
        yield answered
        took = HistogramMetricFamily(
            "heal_http_request_seconds",
            "Duration of a request until its answer is complete.",
            labels=("route",),
        )
        bounds = [*map(floatToGoString, _REQUEST_BUCKETS), "+Inf"]
        for route, times in self._times.items():
            up_to = zip(bounds, map(float, accumulate(times)), strict=True)
            took.add_metric((route,), [*up_to], self._seconds[route])
        yield took


@dataclass(frozen=True, slots=True, kw_only=True)
class Measures:
    """Counters and histograms of one process. Durations are seconds."""

    registry: CollectorRegistry
    passes: Counter
    """Passes of the loop over an incident, by result: `done`, `retried`, `defect`."""
    pass_seconds: Histogram
    stage_seconds: Histogram
    """By stage of the loop."""
    handled_signals: dict[str, Counter]
    """Signals that this process accepted: the series of each disposition."""
    missed_alerts: Counter
    """Alerts that were found by polling because their delivery was missed."""
    requests: Requests

    def note_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count an answered request."""
        self.requests.note(method, route, status, seconds)

    def stage(self, name: str) -> AbstractContextManager[object]:
        """Measures a stage of an incident while the context lasts."""
        return self.stage_seconds.labels(name.replace(" ", "_")).time()

    def signals(self, dispositions: Iterable[str]) -> None:
        """Count accepted signals by their dispositions."""
        for kind, count in collections.Counter(dispositions).items():
            self.handled_signals[kind].inc(count)

    @classmethod
    def of_process(cls) -> Measures:
        """New ones, at zero, beside CPU, memory and garbage collection of the process."""
        registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=registry)
        passes = Counter("heal_passes", "Passes over an incident.", ["result"], registry=registry)
        for result in ("done", "retried", "defect"):
            passes.labels(result)
        return cls(
            registry=registry,
            passes=passes,
            pass_seconds=Histogram(
                "heal_pass_seconds",
                "Duration of a pass over an incident.",
                buckets=_PASS_BUCKETS,
                registry=registry,
            ),
            stage_seconds=Histogram(
                "heal_stage_seconds",
                "Duration of a stage of an incident.",
                ["stage"],
                buckets=_PASS_BUCKETS,
                registry=registry,
            ),
            handled_signals=_signals(registry),
            missed_alerts=Counter(
                "heal_missed_alerts",
                "Alerts found by polling because their delivery was missed.",
                registry=registry,
            ),
            requests=Requests(registry),
        )


def _signals(registry: CollectorRegistry) -> dict[str, Counter]:
    """Every disposition from zero: the first event of a new series would show no increase."""
    counter = Counter(
        "heal_signals", "Signals that this process accepted.", ["disposition"], registry=registry
    )
    return {kind: counter.labels(kind) for kind in DispositionKind}
