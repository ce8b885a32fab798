"""Input and output of the ranking of root causes: a system around the time of a symptom, and candidates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from app.agent.localisation.deviation import NormalRange, Point

SeriesKey = tuple[str, str]
"""Service and metric."""


class FaultClass(StrEnum):
    """The kind of fault of a service, as far as measurements show it."""

    CPU = "cpu"
    MEMORY = "memory"
    DISK = "disk"
    NETWORK = "network"
    ERRORS = "errors"
    LATENCY = "latency"
    OVERLOAD = "overload"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedSymptom:
    """Where people noticed the symptom, and in which metric."""

    service: str
    metric: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedChange:
    """A deploy or configuration change, at a unix time; most changes near a symptom did not cause it."""

    service: str
    kind: str
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedSystem:
    """All that is known when a symptom is diagnosed. Times are unix seconds.

    `kinds` maps each service to its kind. `calls` holds pairs of caller and callee
    and may be incomplete or empty. `normal` is the fault-free range of each series.
    """

    kinds: Mapping[str, str]
    calls: Sequence[tuple[str, str]]
    started_at: float
    series: Mapping[SeriesKey, Sequence[Point]]
    normal: Mapping[SeriesKey, NormalRange]
    symptom: ObservedSymptom | None = None
    changes: Sequence[ObservedChange] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RootCauseCandidate:
    """A service that may be the root cause, with the evidence for and against it.

    `score` orders the candidates: natural logarithm of the odds, up to a constant.
    `confidence` is the probability that the service is the root cause.
    """

    service: str
    score: float
    confidence: float
    fault: FaultClass
    evidence_for: tuple[str, ...]
    evidence_against: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Localisation:
    """Every service, most probable root cause first; `unknown` when the first is not probable enough."""

    candidates: tuple[RootCauseCandidate, ...]
    unknown: bool
