"""Timing evidence about a change: whether the incident started with it, before it, or long after it."""

from __future__ import annotations

from datetime import timedelta

from app.agent.evidence.changes import REPORT_DELAY, CandidateChange
from app.agent.evidence.format import relative
from app.agent.evidence.scoring import CauseScore
from app.agent.evidence.symptoms import (
    CLOCK_TOLERANCE,
    SymptomIndicator,
    breached,
    incident_onset,
    levels_around,
    now_at,
    rise,
)
from app.agent.models import Evidence
from app.durations import span

SOON = timedelta(minutes=5)
LATE = timedelta(minutes=15)

_SAME_LEVEL = 1.3
"""A smaller factor between before and after does not count as a difference."""

_RISEN, _RISEN_TWICE = 0.75, 0.8
_BREACHED_CONFIRMED, _BREACHED_REPORTED = 0.62, 0.5
"""A breach without a history of samples: the change is seen in the cluster, or only reported."""


def score_timing(cause_score: CauseScore, candidate_change: CandidateChange, evidence: Evidence) -> None:
    """Apply findings from the service levels around the change, and from its distance to the onset."""
    _score_levels(cause_score, candidate_change, evidence)
    _score_distance(cause_score, candidate_change, evidence)


def _score_levels(cause_score: CauseScore, candidate_change: CandidateChange, evidence: Evidence) -> None:
    """A symptom is evidence for a change only if it began after the change."""
    risen = [t for i in breached(evidence) if (t := _risen(i, candidate_change, evidence)) is not None]
    flat = [t for i in breached(evidence) if (t := _flat(i, candidate_change, evidence)) is not None]
    came_first = candidate_change.at < incident_onset(evidence)
    if risen and came_first:
        cause_score.add_for(_RISEN_TWICE if len(risen) > 1 else _RISEN, "; ".join(risen))
    elif flat:
        cause_score.add_against(0.7, "; ".join(flat))
    elif breached(evidence) and came_first:
        finding = "; ".join(_in_words(i, evidence) for i in breached(evidence))
        cause_score.add_for(
            _BREACHED_CONFIRMED if candidate_change.confirmed else _BREACHED_REPORTED, finding
        )


def _risen(indicator: SymptomIndicator, candidate_change: CandidateChange, evidence: Evidence) -> str | None:
    found = rise(evidence, indicator)
    if found is None:
        return None
    went = f"{indicator.name} went from {indicator.in_words(found.base)} to {indicator.in_words(found.level)}"
    return f"{went} {relative(found.at, candidate_change.at)}"


def _flat(indicator: SymptomIndicator, candidate_change: CandidateChange, evidence: Evidence) -> str | None:
    levels = levels_around(evidence, candidate_change.at, indicator)
    if rise(evidence, indicator) is not None or levels is None or levels[1] > levels[0] * _SAME_LEVEL:
        return None
    earlier, later = (indicator.in_words(level) for level in levels)
    return f"{indicator.name} was {earlier} before it and {later} after it: no difference"


def _in_words(indicator: SymptomIndicator, evidence: Evidence) -> str:
    value = now_at(evidence, indicator)
    if value is None:
        return f"{indicator.name} above its objective (alert without a value)"
    return f"{indicator.name} {indicator.in_words(value)}, above its objective"


def _score_distance(cause_score: CauseScore, candidate_change: CandidateChange, evidence: Evidence) -> None:
    lag = incident_onset(evidence) - candidate_change.at
    if lag < -CLOCK_TOLERANCE:
        late_report = candidate_change.reported_late and lag >= -REPORT_DELAY
        cause_score.add_against(0.3 if late_report else 0.8, f"the incident started {span(lag)} before it")
    elif candidate_change.stuck:
        return  # the rollout never completed: its age is not evidence
    elif lag > LATE:
        cause_score.add_against(0.5, f"the incident started only {span(lag)} after it")
    elif lag > SOON:
        cause_score.add_against(0.25, f"the incident started {span(lag)} after it")
