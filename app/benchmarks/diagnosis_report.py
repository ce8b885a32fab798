"""The HTML report of the diagnosis benchmark: one file without scripts or outside resources."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from app.agent.evidence.format import counted, share
from app.benchmarks.diagnosis import BenchResult, joined
from app.benchmarks.diagnosis_scores import (
    Accuracy,
    ScoredCase,
    abstained,
    accuracy_of,
    answered_accuracy,
    commonest_floor,
    random_floor,
)
from app.benchmarks.reliability import cells, document, reliability_diagram


def html_report(results: Sequence[BenchResult]) -> str:
    """The report as a document of its own; names of sets and services are escaped."""
    parts = [_section(result) for result in results]
    if len(results) > 1:
        parts.insert(0, _section(joined(results)))
    return document("Diagnosis benchmark", "".join(parts))


def _section(result: BenchResult) -> str:
    title = f"<p>{escape(result.title)}</p>" if result.title else ""
    without = reliability_diagram("without change events", result.without_changes)
    return (
        f"<h2>{escape(result.name)}: {counted(len(result.cases), 'case')}</h2>\n{title}"
        f"{_accuracy_table(result)}{reliability_diagram('all change events', result.cases)}"
        f"{without if result.has_changes else ''}"
        f"{_cases(result.cases)}"
    )


def _accuracy_table(result: BenchResult) -> str:
    rows = [_accuracy_row("agent", result.cases)]
    if result.has_changes:
        rows.append(_accuracy_row("agent without change events", result.without_changes))
    rows.append(_floor_row("random order", random_floor(result.cases)))
    rows.append(_floor_row("commonest answer of the set", commonest_floor(result.cases)))
    headings = ("ranking", "AC@1", "AC@3", "Avg@5", "fault class", "unknown", "right if answered")
    return f"<table><tr>{cells(headings, 'th')}</tr>{''.join(rows)}</table>\n"


def _accuracy_row(name: str, cases: Sequence[ScoredCase]) -> str:
    right = answered_accuracy(cases)
    row = (
        name,
        *_figures(accuracy_of(cases)),
        share(abstained(cases)),
        "-" if right is None else share(right),
    )
    return f"<tr>{cells(row)}</tr>"


def _floor_row(name: str, floor: Accuracy) -> str:
    return f'<tr class="floor">{cells((name, *_figures(floor), "", ""))}</tr>'


def _figures(found: Accuracy) -> tuple[str, ...]:
    return tuple(f"{value:.3f}" for value in (found.ac1, found.ac3, found.avg5, found.fault_accuracy))


def _cases(cases: Sequence[ScoredCase]) -> str:
    headings = ("case", "answer", "confidence", "root cause", "rank", "fault", "true fault")
    rows = []
    for case in cases:
        row = (
            case.id,
            next(iter(case.ranked), "-"),
            share(case.confidence),
            case.root_cause,
            str(case.rank or "-"),
            case.fault or "-",
            case.true_fault,
        )
        style = "unknown" if case.unknown else "" if case.right else "wrong"
        rows.append(f'<tr class="{style}">{cells(row)}</tr>')
    return (
        "<details><summary>Every case; grey: answered with unknown</summary>"
        f"<table><tr>{cells(headings, 'th')}</tr>{''.join(rows)}</table></details>\n"
    )
