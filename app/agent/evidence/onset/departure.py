"""When a symptom began, between two samples of its series. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from app.agent.evidence.symptoms import SymptomIndicator, points_of, reported, rise
from app.agent.models import Evidence

_USUAL = 0.2
"""An indicator is at its usual level up to this share of its rise."""

_WELL = 2
"""So many samples within the objective end a symptom; one may be noise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Departure:
    """The two samples between which an indicator left its usual level."""

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


def returned_at(evidence: Evidence, indicator: SymptomIndicator) -> datetime | None:
    """Since when an indicator is outside its objective again, after it had been within; None: the first time.

    A symptom that ended by itself and returns counts as a new one: its age counts from its return.
    """
    objective = None if evidence.objectives is None else indicator.objective(evidence.objectives)
    points = points_of(evidence, indicator)
    if objective is None or not points or points[-1][1] <= objective:
        return None
    begun = len(points) - 1
    while begun > 0 and points[begun - 1][1] > objective:
        begun -= 1
    before = points[:begun]
    well = len(before) >= _WELL and all(value <= objective for _, value in before[-_WELL:])
    return points[begun][0] if well and any(value > objective for _, value in before) else None
