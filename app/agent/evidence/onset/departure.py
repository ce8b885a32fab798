"""When a symptom began, between two samples of its series. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from app.agent.evidence.symptoms import SymptomIndicator, points_of, reported, rise
from app.agent.models import Evidence

_USUAL = 0.2
"""An indicator is at its usual level up to this share of its rise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Departure:
    """When an indicator left its usual level: between two samples."""

    after: datetime
    """The last sample at the usual level."""
    by: datetime
    """The first sample above it."""


def departure(evidence: Evidence) -> Departure | None:
    """The first reported indicator to leave its usual level; None without a history that shows it."""
    found = [
        one for indicator in reported(evidence) if (one := departure_of(evidence, indicator)) is not None
    ]
    return min(found, key=lambda one: one.by, default=None)


def departure_of(evidence: Evidence, indicator: SymptomIndicator) -> Departure | None:
    """When one indicator left its usual level; None without a rise.

    Walks back from the split into two levels: a rate over a window rises for as long as the window.
    """
    found = rise(evidence, indicator)
    if found is None:
        return None
    points = points_of(evidence, indicator)
    usual = found.base + _USUAL * (found.level - found.base)
    by = next(index for index, (at, _) in enumerate(points) if at >= found.at)
    while by > 0 and points[by - 1][1] > usual:
        by -= 1
    while by < len(points) - 1 and points[by][1] <= usual:
        by += 1
    return Departure(after=points[by - 1][0], by=points[by][0]) if by > 0 else None
