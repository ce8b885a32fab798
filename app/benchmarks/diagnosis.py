"""The diagnosis benchmark: ranks the services of each case of a set and scores the ranking.

Each case is diagnosed alone: nothing is kept from one case to the next except the
range of a history file that several cases name.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.table import Table

from app.agent.evidence.format import share
from app.agent.localisation.deviation import NormalRange
from app.agent.localisation.ranking import localise
from app.agent.localisation.system import Localisation, SeriesKey
from app.benchmarks.diagnosis_scores import (
    CUTOFFS,
    Accuracy,
    ScoredCase,
    abstained,
    accuracy_of,
    answered_accuracy,
    commonest_floor,
    random_floor,
)
from app.benchmarks.diagnosis_sets import DiagnosisCase, DiagnosisSet, ranges_of, read_sets, system_of
from app.benchmarks.reliability import expected_calibration_error, reliability

TOTAL = "total"


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchResult:
    """The scored cases of one set, with and without the change events of the cases."""

    name: str
    title: str
    cases: Sequence[ScoredCase]
    without_changes: Sequence[ScoredCase]
    has_changes: bool


def run(folder: Path) -> list[BenchResult]:
    """Diagnose every case of every set in a folder; raises `MalformedSet`."""
    return [
        BenchResult(
            name=read.name,
            title=read.title,
            cases=_diagnosed(read, with_changes=True),
            without_changes=_diagnosed(read, with_changes=False),
            has_changes=any(case.changes for case in read.cases),
        )
        for read in read_sets(folder)
    ]


def _diagnosed(read: DiagnosisSet, *, with_changes: bool) -> list[ScoredCase]:
    ranges: dict[str, Mapping[SeriesKey, NormalRange]] = {}
    scored = []
    for case in read.cases:
        started = time.perf_counter()
        history = case.baseline or ""
        if history not in ranges:
            ranges[history] = ranges_of(history, read)
        found = localise(system_of(case, ranges[history], with_changes=with_changes))
        elapsed = time.perf_counter() - started
        scored.append(_scored(case, read, found, 1000 * elapsed))
    return scored


def _scored(case: DiagnosisCase, read: DiagnosisSet, found: Localisation, milliseconds: float) -> ScoredCase:
    answer = read.answers[case.id]
    ranked = tuple(candidate.service for candidate in found.candidates)
    first = found.candidates[0] if found.candidates else None
    return ScoredCase(
        set_name=read.name,
        id=case.id,
        services=len(case.services),
        ranked=ranked[: max(CUTOFFS)],
        confidence=first.confidence if first else 0.0,
        unknown=found.unknown,
        fault=first.fault if first else None,
        root_cause=answer.root_cause,
        true_fault=answer.fault,
        rank=ranked.index(answer.root_cause) + 1 if answer.root_cause in ranked else 0,
        milliseconds=milliseconds,
    )


def as_json(results: Sequence[BenchResult]) -> dict[str, object]:
    """The scores of all sets together, and of each set under `sets`."""
    return {
        **_scores(joined(results)),
        "sets": {result.name: {"title": result.title, **_scores(result)} for result in results},
    }


def joined(results: Sequence[BenchResult]) -> BenchResult:
    """All sets as one."""
    return BenchResult(
        name=TOTAL,
        title="",
        cases=[case for result in results for case in result.cases],
        without_changes=[case for result in results for case in result.without_changes],
        has_changes=any(result.has_changes for result in results),
    )


def _scores(result: BenchResult) -> dict[str, object]:
    cases = result.cases
    return {
        "cases": len(cases),
        **_rounded(asdict(accuracy_of(cases))),
        "abstained": round(abstained(cases), 4),
        "answered_accuracy": _rounded_or_none(answered_accuracy(cases)),
        "ms_per_case": round(mean_milliseconds(cases), 2),
        "calibration": {
            "expected_calibration_error": round(expected_calibration_error(cases), 4),
            "bins": [_rounded(asdict(one)) for one in reliability(cases)],
        },
        "floors": {
            "random": _rounded(asdict(random_floor(cases))),
            "commonest_answer": _rounded(asdict(commonest_floor(cases))),
        },
        "without_changes": {
            **_rounded(asdict(accuracy_of(result.without_changes))),
            "abstained": round(abstained(result.without_changes), 4),
            "answered_accuracy": _rounded_or_none(answered_accuracy(result.without_changes)),
        },
        "per_case": [_case_as_json(case) for case in cases],
    }


def _case_as_json(case: ScoredCase) -> dict[str, object]:
    return {
        "set": case.set_name,
        "id": case.id,
        "answer": None if case.unknown else next(iter(case.ranked), None),
        "ranking": list(case.ranked),
        "confidence": round(case.confidence, 4),
        "unknown": case.unknown,
        "fault": case.fault,
        "root_cause": case.root_cause,
        "true_fault": case.true_fault,
        "rank": case.rank or None,
        "ms": round(case.milliseconds, 2),
    }


def mean_milliseconds(cases: Sequence[ScoredCase]) -> float:
    """The mean time of a diagnosis, the ranges of its history included."""
    return math.fsum(case.milliseconds for case in cases) / len(cases) if cases else 0.0


def accuracy_table(results: Sequence[BenchResult]) -> Table:
    """The accuracy of the agent beside both floors, for each set and in total."""
    table = Table(title="Root cause: the right service", title_justify="left")
    table.add_column("set")
    table.add_column("ranking")
    for heading in (
        "cases",
        "AC@1",
        "AC@3",
        "Avg@5",
        "fault class",
        "unknown",
        "right if answered",
        "ms/case",
    ):
        table.add_column(heading, justify="right")
    for result in [*results, *([joined(results)] if len(results) > 1 else [])]:
        _add_rows(table, result)
    return table


def _add_rows(table: Table, result: BenchResult) -> None:
    agents = [("agent", result.cases)]
    if result.has_changes:
        agents.append(("agent without change events", result.without_changes))
    for title, cases in agents:
        right = answered_accuracy(cases)
        table.add_row(
            result.name,
            title,
            str(len(cases)),
            *_cells(accuracy_of(cases)),
            share(abstained(cases)),
            "-" if right is None else share(right),
            f"{mean_milliseconds(cases):.1f}",
        )
    for title, floor in (
        ("random order", random_floor(result.cases)),
        ("commonest answer of the set", commonest_floor(result.cases)),
    ):
        table.add_row(result.name, title, "", *_cells(floor), "", "", "", style="dim")
    table.add_section()


def calibration_table(results: Sequence[BenchResult]) -> Table:
    """The confidence of the first candidates beside the share of them that is right."""
    cases = joined(results).cases
    error = expected_calibration_error(cases)
    table = Table(title=f"Calibration: expected calibration error {error:.3f}", title_justify="left")
    for heading in ("confidence", "cases", "mean confidence", "right"):
        table.add_column(heading, justify="right")
    for found in reliability(cases):
        table.add_row(
            f"{found.low:.0%}..{found.high:.0%}",
            str(found.cases),
            share(found.confidence),
            share(found.accuracy),
        )
    return table


def _cells(accuracy: Accuracy) -> tuple[str, str, str, str]:
    return (
        f"{accuracy.ac1:.3f}",
        f"{accuracy.ac3:.3f}",
        f"{accuracy.avg5:.3f}",
        f"{accuracy.fault_accuracy:.3f}",
    )


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in values.items()}


def _rounded_or_none(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
