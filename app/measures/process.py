"""Metrics of this process: counters and histograms that its parts write.

Each process has a registry of its own, so that several agents in one interpreter
(tests, simulations) do not share counts. Labels have few values: a route is its
template and a peer its name, never a service, an incident or a person.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from prometheus_client import (
    CollectorRegistry,
    Counter,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)

from app.agent.models import DispositionKind

_PASS_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_REQUEST_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measures:
    """Counters and histograms of one process. Durations are seconds."""

    registry: CollectorRegistry
    passes: Counter
    """Passes of the loop over an incident, by result: `done`, `retried`, `defect`."""
    pass_seconds: Histogram
    stage_seconds: Histogram
    """By stage of the loop."""
    handled_signals: Counter
    """Signals that this process accepted, by disposition."""
    missed_alerts: Counter
    """Alerts that were found by polling because their delivery was missed."""
    requests: Counter
    """By method, route template and status."""
    request_seconds: Histogram
    _of_request: dict[tuple[str, str, int], tuple[Counter, Histogram]] = field(default_factory=dict)
    """The series of each kind of request, so that the labels are looked up once."""

    def note_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count an answered request."""
        series = self._of_request.get((method, route, status))
        if series is None:
            series = self.requests.labels(method, route, str(status)), self.request_seconds.labels(route)
            self._of_request[method, route, status] = series
        series[0].inc()
        series[1].observe(seconds)

    def stage(self, name: str) -> AbstractContextManager[object]:
        """Measures a stage of an incident while the context lasts."""
        return self.stage_seconds.labels(name.replace(" ", "_")).time()

    def signals(self, dispositions: Iterable[str]) -> None:
        """Count accepted signals by their dispositions."""
        for kind in dispositions:
            self.handled_signals.labels(kind).inc()

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
            requests=Counter(
                "heal_http_requests",
                "Requests answered by this process.",
                ["method", "route", "status"],
                registry=registry,
            ),
            request_seconds=Histogram(
                "heal_http_request_seconds",
                "Duration of a request until its answer is complete.",
                ["route"],
                buckets=_REQUEST_BUCKETS,
                registry=registry,
            ),
        )


def _signals(registry: CollectorRegistry) -> Counter:
    """Every disposition from zero: the first event of a new series would show no increase."""
    counter = Counter(
        "heal_signals", "Signals that this process accepted.", ["disposition"], registry=registry
    )
    for kind in DispositionKind:
        counter.labels(kind)
    return counter
