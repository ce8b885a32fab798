"""How the load of a service changed with a symptom, and whether it calls a dependency more often. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from statistics import median

from app.agent.evidence.symptoms import incident_onset
from app.agent.ids import ServiceKey
from app.agent.models import Evidence, SliSample

BEFORE_ONSET = timedelta(minutes=2)
"""The last samples before the onset do not count as history: the fault begins before its first symptom."""

OTHER_LOAD = 1.5
"""Requests that change by more than this factor are another load, not noise."""

_LEAST_LOAD = 0.1


def calls_more_often(evidence: Evidence, dependency: ServiceKey) -> float | None:
    """How much more calls to a dependency grew than the requests of the service; None unless they did."""
    began = incident_onset(evidence)
    sli = levels_of(evidence, dependency)
    factor = load_since(sli, began) / max(load_since(evidence.sli, began), _LEAST_LOAD)
    return factor if factor > OTHER_LOAD else None


def levels_of(evidence: Evidence, dependency: ServiceKey) -> Sequence[SliSample]:
    """The service levels of a dependency, oldest first; empty if none are known."""
    return next((levels.sli for levels in evidence.dependency_levels if levels.key == dependency), ())


def load_since(sli: Sequence[SliSample], began: datetime) -> float:
    """The requests of a service since the onset, as a multiple of those before; 1 if unknown."""
    rates = [(s.at, s.request_rate) for s in one_source(sli) if s.request_rate is not None]
    before = [rate for at, rate in rates if at < began - BEFORE_ONSET]
    since = [rate for at, rate in rates if at >= began]
    if not before or not since or not median(before):
        return 1.0
    return median(since) / median(before)


def one_source(sli: Sequence[SliSample]) -> Sequence[SliSample]:
    """The measured samples, or the posted ones if there are no measured ones: never both as one history."""
    return [sample for sample in sli if sample.measured] or sli
