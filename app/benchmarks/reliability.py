"""Whether confidences can be relied on: bins, calibration error, and the parts of reports that show them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Protocol

from app.agent.evidence.format import counted, share

_BINS = 5
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


class Answered(Protocol):
    """An answer with its confidence (0..1), and whether it was right."""

    @property
    def confidence(self) -> float: ...

    @property
    def right(self) -> bool: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ReliabilityBin:
    """Cases with similar confidence: how many, their mean confidence, and the share that was right."""

    low: float
    high: float
    cases: int
    confidence: float
    accuracy: float


def reliability(cases: Sequence[Answered]) -> list[ReliabilityBin]:
    """The cases by confidence, in bins of equal width without the empty ones."""
    bins: dict[int, list[Answered]] = {}
    for case in cases:
        bins.setdefault(min(_BINS - 1, int(case.confidence * _BINS)), []).append(case)
    return [
        ReliabilityBin(
            low=place / _BINS,
            high=(place + 1) / _BINS,
            cases=len(found),
            confidence=mean([case.confidence for case in found]),
            accuracy=mean([case.right for case in found]),
        )
        for place, found in sorted(bins.items())
    ]


def expected_calibration_error(cases: Sequence[Answered]) -> float:
    """The mean distance between confidence and accuracy over the bins, weighted by their cases."""
    return mean(
        [abs(b.confidence - b.accuracy) for b in reliability(cases) for _ in range(b.cases)],
    )


def document(title: str, body: str) -> str:
    """An HTML document of its own, without scripts or outside resources."""
    return (
        '<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n"
        f"<body><h1>{escape(title)}</h1>\n{body}</body></html>\n"
    )


def reliability_diagram(title: str, cases: Sequence[Answered]) -> str:
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


def cells(texts: Sequence[str], tag: str = "td") -> str:
    return "".join(f"<{tag}>{escape(text)}</{tag}>" for text in texts)


def mean(values: Sequence[float]) -> float:
    """The mean; 0 of nothing."""
    return math.fsum(values) / len(values) if values else 0.0
