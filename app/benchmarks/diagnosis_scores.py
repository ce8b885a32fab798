"""Scores of the diagnosis benchmark: accuracy, abstention, calibration, and the floors beside them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from app.agent.localisation.system import FaultClass
from app.benchmarks.reliability import mean

CUTOFFS = (1, 2, 3, 4, 5)

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


def accuracy_of(cases: Sequence[ScoredCase]) -> Accuracy:
    """The accuracy of the ranking, abstentions included."""
    return _accuracy(
        {k: mean([0 < case.rank <= k for case in cases]) for k in CUTOFFS},
        mean([case.fault in classes_of(case.true_fault) for case in cases]),
    )


def random_floor(cases: Sequence[ScoredCase]) -> Accuracy:
    """What a random order of the services and a random label of a case's own set score on average."""
    labels = {
        found: len({case.true_fault for case in cases if case.set_name == found})
        for found in {case.set_name for case in cases}
    }
    return _accuracy(
        {k: mean([min(1.0, k / max(1, case.services)) for case in cases]) for k in CUTOFFS},
        mean([1 / labels[case.set_name] for case in cases]),
    )


def commonest_floor(cases: Sequence[ScoredCase]) -> Accuracy:
    """What the commonest answers of a case's own set score: a memory of names that looks at no case."""
    names: dict[str, list[str]] = {}
    labels: dict[str, str] = {}
    for found in {case.set_name for case in cases}:
        names[found] = _by_frequency([case.root_cause for case in cases if case.set_name == found])
        labels[found] = _by_frequency([case.true_fault for case in cases if case.set_name == found])[0]
    return _accuracy(
        {k: mean([case.root_cause in names[case.set_name][:k] for case in cases]) for k in CUTOFFS},
        mean([case.true_fault == labels[case.set_name] for case in cases]),
    )


def abstained(cases: Sequence[ScoredCase]) -> float:
    """The share of cases that were answered with unknown."""
    return mean([case.unknown for case in cases])


def answered_accuracy(cases: Sequence[ScoredCase]) -> float | None:
    """The share of right first candidates among the answered cases; None without an answered case."""
    answered = [case.right for case in cases if not case.unknown]
    return mean(answered) if answered else None


def _accuracy(within: dict[int, float], fault: float) -> Accuracy:
    return Accuracy(ac1=within[1], ac3=within[3], avg5=mean(list(within.values())), fault_accuracy=fault)


def _by_frequency(names: Sequence[str]) -> list[str]:
    """The different names, commonest first."""
    return [name for name, _ in sorted(Counter(names).items(), key=lambda item: (-item[1], item[0]))]
