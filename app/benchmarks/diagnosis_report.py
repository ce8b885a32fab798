"""The HTML report of the diagnosis benchmark: one file without scripts or outside resources."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from app.agent.evidence.format import counted, share
from app.benchmarks.diagnosis import BenchResult, joined
from app.benchmarks.diagnosis_scores import (
    Accuracy,
    ReliabilityBin,
    ScoredCase,
    abstained,
    accuracy_of,
    answered_accuracy,
    commonest_floor,
    expected_calibration_error,
    random_floor,
    reliability,
)

_SIDE = 300
_MARGIN = 40

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { border-bottom: 1px solid #ccc; padding: .2rem .8rem; text-align: right; }
th:first-child, td:first-child { text-align: left; }
figure { display: inline-block; margin: 0 2rem 1rem 0; }
.floor { color: #666; }
.wrong { background: #fbe3e0; }
.unknown { color: #666; }
"""


def html_report(results: Sequence[BenchResult]) -> str:
    """The report as a document of its own; names of sets and services are escaped."""
    parts = [_section(result) for result in results]
    if len(results) > 1:
        parts.insert(0, _section(joined(results)))
    return (
        '<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8">'
        f"<title>Diagnosis benchmark</title><style>{_STYLE}</style></head>\n"
        f"<body><h1>Diagnosis benchmark</h1>\n{''.join(parts)}</body></html>\n"
    )


def _section(result: BenchResult) -> str:
    title = f"<p>{escape(result.title)}</p>" if result.title else ""
    return (
        f"<h2>{escape(result.name)}: {counted(len(result.cases), 'case')}</h2>\n{title}"
        f"{_accuracy_table(result)}{_figure('all change events', result.cases)}"
        f"{_figure('without change events', result.without_changes) if result.has_changes else ''}"
        f"{_cases(result.cases)}"
    )


def _accuracy_table(result: BenchResult) -> str:
    rows = [_accuracy_row("agent", result.cases)]
    if result.has_changes:
        rows.append(_accuracy_row("agent without change events", result.without_changes))
    rows.append(_floor_row("random order", random_floor(result.cases)))
    rows.append(_floor_row("commonest answer of the set", commonest_floor(result.cases)))
    headings = ("ranking", "AC@1", "AC@3", "Avg@5", "fault class", "unknown", "right if answered")
    return f"<table><tr>{_cells(headings, 'th')}</tr>{''.join(rows)}</table>\n"


def _accuracy_row(name: str, cases: Sequence[ScoredCase]) -> str:
    right = answered_accuracy(cases)
    cells = (
        name,
        *_figures(accuracy_of(cases)),
        share(abstained(cases)),
        "-" if right is None else share(right),
    )
    return f"<tr>{_cells(cells)}</tr>"


def _floor_row(name: str, floor: Accuracy) -> str:
    return f'<tr class="floor">{_cells((name, *_figures(floor), "", ""))}</tr>'


def _figures(found: Accuracy) -> tuple[str, ...]:
    return tuple(f"{value:.3f}" for value in (found.ac1, found.ac3, found.avg5, found.fault_accuracy))


def _figure(title: str, cases: Sequence[ScoredCase]) -> str:
    """The reliability diagram: accuracy over confidence; on the diagonal the confidence is right."""
    whole = _SIDE + 2 * _MARGIN
    marks = "".join(_mark(found, len(cases)) for found in reliability(cases))
    error = expected_calibration_error(cases)
    labels = "".join(
        f'<text x="{_x(tick)}" y="{_y(0) + 18}" text-anchor="middle">{tick:.0%}</text>'
        f'<text x="{_x(0) - 6}" y="{_y(tick) + 4}" text-anchor="end">{tick:.0%}</text>'
        for tick in (0.0, 0.5, 1.0)
    )
    return (
        f'<figure><svg width="{whole}" height="{whole}" role="img" font-size="11" '
        f'aria-label="Reliability diagram, {escape(title)}">'
        f'<rect x="{_x(0)}" y="{_y(1)}" width="{_SIDE}" height="{_SIDE}" fill="none" stroke="#999"/>'
        f'<line x1="{_x(0)}" y1="{_y(0)}" x2="{_x(1)}" y2="{_y(1)}" stroke="#999" stroke-dasharray="4"/>'
        f"{labels}{marks}"
        f'<text x="{_x(0.5)}" y="{whole - 4}" text-anchor="middle">confidence</text></svg>'
        f"<figcaption>{escape(title)}: share that is right; expected calibration error {error:.3f}"
        "</figcaption></figure>\n"
    )


def _mark(found: ReliabilityBin, cases: int) -> str:
    """A bin: the larger the circle, the more cases it has."""
    radius = 3 + 12 * found.cases / cases
    return (
        f'<circle cx="{_x(found.confidence):.1f}" cy="{_y(found.accuracy):.1f}" r="{radius:.1f}" '
        f'fill="#3569a8" fill-opacity="0.7"><title>{counted(found.cases, "case")}: confidence '
        f"{share(found.confidence)}, right {share(found.accuracy)}</title></circle>"
    )


def _x(value: float) -> float:
    return _MARGIN + _SIDE * value


def _y(value: float) -> float:
    return _MARGIN + _SIDE * (1 - value)


def _cases(cases: Sequence[ScoredCase]) -> str:
    headings = ("case", "answer", "confidence", "root cause", "rank", "fault", "true fault")
    rows = []
    for case in cases:
        cells = (
            case.id,
            next(iter(case.ranked), "-"),
            share(case.confidence),
            case.root_cause,
            str(case.rank or "-"),
            case.fault or "-",
            case.true_fault,
        )
        style = "unknown" if case.unknown else "" if case.right else "wrong"
        rows.append(f'<tr class="{style}">{_cells(cells)}</tr>')
    return (
        "<details><summary>Every case; grey: answered with unknown</summary>"
        f"<table><tr>{_cells(headings, 'th')}</tr>{''.join(rows)}</table></details>\n"
    )


def _cells(texts: Sequence[str], tag: str = "td") -> str:
    return "".join(f"<{tag}>{escape(text)}</{tag}>" for text in texts)
