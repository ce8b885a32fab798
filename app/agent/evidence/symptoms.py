"""Symptoms and their onset: when the incident started, and rises in the service level indicators."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import accumulate
from math import isfinite
from statistics import fmean, median

from app.agent.evidence.conditions import pod_conditions
from app.agent.evidence.format import milliseconds, rate, share
from app.agent.evidence.releases import standing_failures
from app.agent.models import (
    POLLED,
    Alert,
    ChangeKind,
    ClusterCondition,
    Deploy,
    DeployStatus,
    Evidence,
    MetricSample,
    Objectives,
    Signal,
    SliSample,
    Trigger,
)

CLOCK_TOLERANCE = timedelta(seconds=60)
"""Tolerance: clocks of pipeline, cluster and monitoring differ, and rates are window averages."""

FRESH = timedelta(minutes=2)
"""A measurement older than this is not current."""

_MIN_SIDE = 2
"""A rise needs this many samples on both sides."""

METRIC_TRIGGERS = frozenset({Trigger.HIGH_ERROR_RATE, Trigger.HIGH_LATENCY})


@dataclass(frozen=True, slots=True, kw_only=True)
class SymptomIndicator:
    """One service level indicator, and its thresholds for a rise."""

    name: str
    of: Callable[[SliSample], float | None]
    in_words: Callable[[float], str]
    factor: float
    least: float
    """A rise is at least by this factor and by this amount."""
    objective: Callable[[Objectives], float | None] = lambda _: None
    """Above it the indicator is a symptom; None: never a symptom."""


ERROR_RATE = SymptomIndicator(
    name="error rate",
    of=lambda s: s.error_rate,
    in_words=share,
    factor=2.0,
    least=0.01,
    objective=lambda o: o.max_error_rate,
)
LATENCY = SymptomIndicator(
    name="p95 latency",
    of=lambda s: s.p95_latency_ms,
    in_words=milliseconds,
    factor=1.5,
    least=10.0,
    objective=lambda o: o.max_p95_latency_ms,
)
TRAFFIC = SymptomIndicator(
    name="request rate", of=lambda s: s.request_rate, in_words=rate, factor=1.6, least=0.5
)

_BREACHED = {Trigger.HIGH_ERROR_RATE: ERROR_RATE, Trigger.HIGH_LATENCY: LATENCY}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rise:
    """An indicator rose from one level to a clearly higher one and has not returned."""

    at: datetime
    base: float
    level: float


def onset(evidence: Evidence) -> datetime:
    """The earliest symptom: a sample out of its objective, an alert, a cluster condition, lost readiness.

    If a failed deploy is the only symptom, the onset is the time of its report.
    """
    noticed = [s.observed_at for s in evidence.signals if _is_symptom(s, evidence.objectives)]
    failed = [
        s.observed_at
        for s in evidence.signals
        if isinstance(s.payload, Deploy) and s.payload.status is DeployStatus.FAILED
    ]
    return min([*(noticed or failed), *_lost_readiness(evidence), evidence.opened_at])


def _lost_readiness(evidence: Evidence) -> list[datetime]:
    """When pods that had served and have a condition now stopped being ready.

    A condition is reported only after it has held for its time; a change in between is not its cause.
    """
    workload = evidence.workload
    if workload is None or METRIC_TRIGGERS.issuperset(evidence.triggers):
        return []
    return [
        pod.ready_changed_at
        for pod in workload.pods
        if pod.ready_changed_at is not None
        and not pod.ready
        and pod.ready_changed_at - pod.created_at > FRESH
        and any(pod_conditions(pod, workload))
    ]


def _is_symptom(signal: Signal, objectives: Objectives | None) -> bool:
    match signal.payload:
        case MetricSample() as sample:
            return bool(sample.crash_looping) or out_of_objective(_sample_of(signal, sample), objectives)
        case Alert() as alert:
            return alert.firing
        case ClusterCondition() as condition:
            return condition.present
        case _:
            return False


def out_of_objective(sample: SliSample, objectives: Objectives | None) -> bool:
    """Whether a measured error rate or latency is not known to be inside its objective."""
    return any(
        (value := indicator.of(sample)) is not None and not _inside(indicator, value, objectives)
        for indicator in _BREACHED.values()
    )


def _inside(indicator: SymptomIndicator, value: float, objectives: Objectives | None) -> bool:
    """Whether a value is known to be inside its objective."""
    objective = None if objectives is None else indicator.objective(objectives)
    return objective is not None and value <= objective


def failed_deploys(evidence: Evidence) -> tuple[Signal, ...]:
    """The deploys that a pipeline reported as failed, without a later success."""
    own = [c for c in evidence.changes if c.key == evidence.key and c.kind is ChangeKind.DEPLOY]
    return standing_failures(evidence.signals, own)


def samples(evidence: Evidence) -> tuple[SliSample, ...]:
    """Service levels, pushed and measured, oldest first; `measured` distinguishes them."""
    found: dict[tuple[datetime, bool], SliSample] = {}
    for signal in evidence.signals:
        if isinstance(signal.payload, MetricSample):
            sample = _sample_of(signal, signal.payload)
            found[sample.at, sample.measured] = sample
    found |= {(sample.at, sample.measured): sample for sample in evidence.sli}
    return tuple(found[place] for place in sorted(found))


def _sample_of(signal: Signal, sample: MetricSample) -> SliSample:
    return SliSample(
        at=signal.observed_at,
        error_rate=sample.error_rate,
        p95_latency_ms=sample.p95_latency_ms,
        request_rate=sample.request_rate,
        measured=signal.source == POLLED,
    )


def reported(evidence: Evidence) -> tuple[SymptomIndicator, ...]:
    """The indicators of this incident's triggers."""
    return tuple(_BREACHED[t] for t in sorted(METRIC_TRIGGERS & set(evidence.triggers)))


def breached(evidence: Evidence) -> tuple[SymptomIndicator, ...]:
    """The indicators of this incident, without those known to be within their objective now."""
    return tuple(i for i in reported(evidence) if doubt(evidence, i) is None and not _inside_now(evidence, i))


def doubt(evidence: Evidence, indicator: SymptomIndicator) -> str | None:
    """How the agent's newest measurement contradicts a reported symptom; None if it does not."""
    own = [s for s in samples(evidence) if s.measured and evidence.at - FRESH <= s.at <= evidence.at]
    objectives = evidence.objectives
    if not own or objectives is None:
        return None
    newest_one = own[-1]
    traffic = newest_one.request_rate
    if traffic is not None and traffic < objectives.min_request_rate:
        return f"only {traffic:.2f} requests/s measured: too few to evaluate its {indicator.name}"
    value = indicator.of(newest_one)
    if value is None or not isfinite(value) or not _inside(indicator, value, objectives):
        return None
    return f"its measured {indicator.name} is {indicator.in_words(value)}, within its objective"


def _inside_now(evidence: Evidence, indicator: SymptomIndicator) -> bool:
    value = now_at(evidence, indicator)
    return value is not None and _inside(indicator, value, evidence.objectives)


def now_at(evidence: Evidence, indicator: SymptomIndicator) -> float | None:
    """The newest value; None if it is older than the last report of the symptom."""
    points = points_of(evidence, indicator)
    if not points:
        return None
    signs = [s.observed_at for s in evidence.signals if _is_symptom(s, evidence.objectives)]
    at, value = points[-1]
    return value if at >= max(signs, default=at) else None


def metric_onset(evidence: Evidence) -> datetime:
    """When the reported indicators rose, by their series; else when they were first reported."""
    rises = [rise(evidence, indicator) for indicator in reported(evidence)]
    first = onset(evidence)
    rose = min((r.at for r in rises if r is not None), default=first)
    # A rate shows a rise up to one window late. A report from long before the rise is not the onset.
    return min(rose, first) if rose - first <= FRESH else rose


def incident_onset(evidence: Evidence) -> datetime:
    """When the incident started: the earliest symptom. Changes at that time or later are not its cause."""
    if METRIC_TRIGGERS.isdisjoint(evidence.triggers):
        return onset(evidence)
    if METRIC_TRIGGERS.issuperset(evidence.triggers):
        return metric_onset(evidence)
    return min(onset(evidence), metric_onset(evidence))


def levels_around(
    evidence: Evidence, at: datetime, indicator: SymptomIndicator
) -> tuple[float, float] | None:
    """Median before and after `at`; None with fewer than three samples on either side."""
    points = points_of(evidence, indicator)
    earlier = [v for when, v in points if when <= at]
    later = [v for when, v in points if when > at]
    if len(earlier) < 3 or len(later) < 3:
        return None
    return median(earlier), median(later)


def rise(evidence: Evidence, indicator: SymptomIndicator) -> Rise | None:
    """The least-squares split into two levels, if the later level is clearly higher.

    None also when the newest values are back at the earlier level.
    """
    points = points_of(evidence, indicator)
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


def points_of(evidence: Evidence, indicator: SymptomIndicator) -> list[tuple[datetime, float]]:
    """The series of an indicator: the agent's measurements, or pushed samples where there are none."""
    known = [
        (s.measured, s.at, v) for s in samples(evidence) if (v := indicator.of(s)) is not None and isfinite(v)
    ]
    own = any(measured for measured, _, _ in known)
    return [(at, value) for measured, at, value in known if measured is own]
