"""Locates the symptom of an incident among its service and the services that it calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from app.agent.evidence.onset.load import BEFORE_ONSET, OTHER_LOAD, load_since, one_source
from app.agent.evidence.symptoms import METRIC_TRIGGERS, incident_onset
from app.agent.ids import ServiceKey
from app.agent.localisation.deviation import NormalRange, Point, normal_range
from app.agent.localisation.ranking import localise
from app.agent.localisation.system import (
    ObservedChange,
    ObservedSymptom,
    ObservedSystem,
    RootCauseCandidate,
    SeriesKey,
)
from app.agent.models import Evidence, SliSample, Trigger

_ERRORS, _LATENCY, _REQUESTS = "error rate", "p95 latency in ms", "requests per second"


@dataclass(frozen=True, slots=True, kw_only=True)
class LocatedSymptom:
    """The service where the symptom starts, with the probability of that and the evidence for it."""

    key: ServiceKey
    confidence: float
    evidence_for: tuple[str, ...]


def locate(evidence: Evidence) -> LocatedSymptom | None:
    """The service where the symptom starts; None where the measurements leave it open.

    It is left open too where the located dependency gets more requests than usual, because
    the calls of the service may be what makes it slow; and where the service itself is
    located while a dependency gets far fewer, because it may be out of reach.
    """
    if not evidence.dependency_levels or METRIC_TRIGGERS.isdisjoint(evidence.triggers):
        return None
    began = incident_onset(evidence)
    keys = {str(levels.key): levels.key for levels in evidence.dependency_levels}
    keys[str(evidence.key)] = evidence.key
    found = localise(_system_of(evidence, began))
    if found.unknown or found.candidates[0].service not in keys:
        return None
    first = found.candidates[0]
    key = keys[first.service]
    loads = {levels.key: load_since(levels.sli, began) for levels in evidence.dependency_levels}
    if loads.get(key, 1.0) > OTHER_LOAD or (key == evidence.key and min(loads.values()) < 1 / OTHER_LOAD):
        return None
    return LocatedSymptom(key=key, confidence=first.confidence, evidence_for=_described(first))


def _described(candidate: RootCauseCandidate) -> tuple[str, ...]:
    return candidate.evidence_for[1:] or candidate.evidence_for


def _system_of(evidence: Evidence, began: datetime) -> ObservedSystem:
    series: dict[SeriesKey, Sequence[Point]] = {}
    normal: dict[SeriesKey, NormalRange] = {}
    measured = {evidence.key: evidence.sli} | {d.key: d.sli for d in evidence.dependency_levels}
    instants = [sample.at for sample in one_source(evidence.sli) if sample.at >= began]
    for key, sli in measured.items():
        samples = one_source(sli)
        for metric in (_ERRORS, _LATENCY, _REQUESTS):
            points = [(s.at, _value(s, metric)) for s in samples]
            since = [(at, value) for at, value in points if at >= began]
            normal[str(key), metric] = normal_range(v for at, v in points if at < began - BEFORE_ONSET)
            # A history omits instants without any data: a series that ended gets them back.
            series[str(key), metric] = [
                (at.timestamp(), value) for at, value in since or [(at, None) for at in instants]
            ]
    symptom = _ERRORS if Trigger.HIGH_ERROR_RATE in evidence.triggers else _LATENCY
    calls = [(evidence.key, callee) for callee in evidence.dependencies]
    calls += [(d.key, callee) for d in evidence.dependency_levels for callee in d.calls]
    return ObservedSystem(
        kinds={str(key): "service" for key in measured},
        calls=[(str(caller), str(callee)) for caller, callee in calls],
        started_at=began.timestamp(),
        series=series,
        normal=normal,
        symptom=ObservedSymptom(service=str(evidence.key), metric=symptom),
        changes=[
            ObservedChange(service=str(change.key), kind=change.kind, at=change.at.timestamp())
            for change in evidence.changes
            if change.key in measured
        ],
    )


def _value(sample: SliSample, metric: str) -> float | None:
    if metric == _ERRORS:
        return sample.error_rate
    return sample.p95_latency_ms if metric == _LATENCY else sample.request_rate
