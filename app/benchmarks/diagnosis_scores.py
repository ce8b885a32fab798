"""Scores of the diagnosis benchmark: accuracy, abstention, calibration, and the floors beside them."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from app.agent.localisation.system import FaultClass

CUTOFFS = (1, 2, 3, 4, 5)
_BINS = 5

_LABELS: tuple[tuple[frozenset[str], frozenset[FaultClass]], ...] = (
    (frozenset({"cpu"}), frozenset({FaultClass.CPU})),
    (frozenset({"mem", "memory", "leak", "oom"}), frozenset({FaultClass.MEMORY})),
    (frozenset({"disk", "io"}), frozenset({FaultClass.DISK})),
    (
        frozenset({"network", "net", "loss", "packet", "partition", "socket"}),
        frozenset({FaultClass.NETWORK}),
    ),
    (frozenset({"delay"}), frozenset({FaultClass.NETWORK, FaultClass.LATENCY})),
    (frozenset({"latency", "slow"}), frozenset({FaultClass.LATENCY})),
    (
        frozenset({"overload", "load", "surge", "traffic", "saturation"}),
        frozenset({FaultClass.OVERLOAD}),
    ),
    (frozenset({"error", "errors", "exception", "code", "return"}), frozenset({FaultClass.ERRORS})),
    (
        frozenset({"crash", "kill", "killed", "down", "unavailable", "stop"}),
        frozenset({FaultClass.UNAVAILABLE}),
    ),
)
"""Words of the labels of data sets, and the fault classes that answer them; the first match decides."""


def classes_of(label: str) -> frozenset[FaultClass]:
    """The fault classes that are right for a label of a data set; none for a label without a known word."""
    words = frozenset(re.findall(r"[a-z]+", label.lower()))
    return next((classes for known, classes in _LABELS if known & words), frozenset())


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredCase:
    """The answer to one case beside the truth. `rank` counts from 1; 0 where the root cause is not ranked."""

    set_name: str
    id: str
    services: int
    ranked: tuple[str, ...]
    confidence: float
    unknown: bool
    fault: FaultClass | None
    root_cause: str
    true_fault: str
    rank: int
    milliseconds: float

    @property
    def right(self) -> bool:
        return self.rank == 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """Shares (0..1) of cases whose root cause is first, among the first three, and the mean of 1..5."""

    ac1: float
    ac3: float
    avg5: float
    fault_accuracy: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ReliabilityBin:
    """Cases with similar confidence: how many, their mean confidence, and the share that was right."""

    low: float
    high: float
    cases: int
    confidence: float
    accuracy: float


def accuracy_of(cases: Sequence[ScoredCase]) -> Accuracy:
    """The accuracy of the ranking, abstentions included."""
    return _accuracy(
        {k: _mean([0 < case.rank <= k for case in cases]) for k in CUTOFFS},
        _mean([case.fault in classes_of(case.true_fault) for case in cases]),
    )


def random_floor(cases: Sequence[ScoredCase]) -> Accuracy:
    """What a random order of the services and a random label of a case's own set score on average."""
    labels = {
        found: len({case.true_fault for case in cases if case.set_name == found})
        for found in {case.set_name for case in cases}
    }
    return _accuracy(
        {k: _mean([min(1.0, k / max(1, case.services)) for case in cases]) for k in CUTOFFS},
        _mean([1 / labels[case.set_name] for case in cases]),
    )


def commonest_floor(cases: Sequence[ScoredCase]) -> Accuracy:
    """What the commonest answers of a case's own set score: a memory of names that looks at no case."""
    names: dict[str, list[str]] = {}
    labels: dict[str, str] = {}
    for found in {case.set_name for case in cases}:
        names[found] = _by_frequency([case.root_cause for case in cases if case.set_name == found])
        labels[found] = _by_frequency([case.true_fault for case in cases if case.set_name == found])[0]
    return _accuracy(
        {k: _mean([case.root_cause in names[case.set_name][:k] for case in cases]) for k in CUTOFFS},
        _mean([case.true_fault == labels[case.set_name] for case in cases]),
    )


def abstained(cases: Sequence[ScoredCase]) -> float:
    """The share of cases that were answered with unknown."""
    return _mean([case.unknown for case in cases])


def answered_accuracy(cases: Sequence[ScoredCase]) -> float | None:
    """The share of right first candidates among the answered cases; None without an answered case."""
    answered = [case.right for case in cases if not case.unknown]
    return _mean(answered) if answered else None


def reliability(cases: Sequence[ScoredCase]) -> list[ReliabilityBin]:
    """The cases by confidence, in bins of equal width without the empty ones."""
    bins: dict[int, list[ScoredCase]] = {}
    for case in cases:
        bins.setdefault(min(_BINS - 1, int(case.confidence * _BINS)), []).append(case)
    return [
        ReliabilityBin(
            low=place / _BINS,
            high=(place + 1) / _BINS,
            cases=len(found),
            confidence=_mean([case.confidence for case in found]),
            accuracy=_mean([case.right for case in found]),
        )
        for place, found in sorted(bins.items())
    ]


def expected_calibration_error(cases: Sequence[ScoredCase]) -> float:
    """The mean distance between confidence and accuracy over the bins, weighted by their cases."""
    return _mean(
        [abs(b.confidence - b.accuracy) for b in reliability(cases) for _ in range(b.cases)],
    )


def _accuracy(within: dict[int, float], fault: float) -> Accuracy:
    return Accuracy(ac1=within[1], ac3=within[3], avg5=_mean(list(within.values())), fault_accuracy=fault)


def _by_frequency(names: Sequence[str]) -> list[str]:
    """The different names, commonest first."""
    return [name for name, _ in sorted(Counter(names).items(), key=lambda item: (-item[1], item[0]))]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else 0.0
