"""Rule: a dependency of the service has failed, and the service only shows its symptoms."""

from __future__ import annotations

from datetime import datetime

from app.agent.evidence.baselines.comparison import unusual_levels
from app.agent.evidence.changes import CandidateChange, release_of, template_config_of
from app.agent.evidence.counter_evidence import score_missing_data
from app.agent.evidence.facts import LOOKBACK, unhealthy_dependencies
from app.agent.evidence.format import relative
from app.agent.evidence.onset.alignment import overloaded_by
from app.agent.evidence.onset.load import OTHER_LOAD, load_since
from app.agent.evidence.pods import pods_fail
from app.agent.evidence.scoring import CauseScore
from app.agent.evidence.symptoms import ERROR_RATE, LATENCY, incident_onset
from app.agent.localisation.dependencies import locate
from app.agent.models import Cause, Evidence, Hypothesis, Trigger

_LOCATED = 0.8
"""The weight of a symptom located with certainty: as much as an open incident of the dependency."""

_VISIBLE = frozenset({Trigger.HIGH_ERROR_RATE, Trigger.HIGH_LATENCY, Trigger.CRASH_LOOP})


def evaluate(evidence: Evidence) -> Hypothesis | None:
    """None unless a known dependency has an open incident, changed shortly before or explains the symptom."""
    if _VISIBLE.isdisjoint(evidence.triggers):
        return None
    cause_score = CauseScore()
    began = incident_onset(evidence)
    own = release_of(evidence) or template_config_of(evidence)
    overloaded = {} if own is None else overloaded_by(own, evidence)
    down = [one.service for one in unhealthy_dependencies(evidence) if one not in overloaded]
    if down:
        cause_score.add_for(0.7, f"{', '.join(down)}, a dependency, fails too")
    changed = [
        c for c in evidence.changes if c.key in evidence.dependencies and began - LOOKBACK <= c.at < began
    ]
    if changed:
        last = max(changed, key=lambda c: c.at)
        when = relative(last.at, began, "the incident started")
        cause_score.add_for(0.3, f"{last.key.service}, a dependency, changed {when}: {last.summary}")
    located = locate(evidence)
    if located is not None and located.key != evidence.key:
        why = "; ".join(located.evidence_for)
        cause_score.add_for(
            _LOCATED * located.confidence,
            f"the symptom starts at {located.key.service}, which it calls: {why}",
        )
    _score_baselines(cause_score, evidence, began)
    if not cause_score.grounds:
        return None
    if located is not None and located.key == evidence.key:
        cause_score.add_against(
            _LOCATED * located.confidence, "the measurements of its dependencies do not explain its symptom"
        )
    _score_own_behaviour(cause_score, own, evidence)
    score_missing_data(cause_score, evidence)
    return cause_score.hypothesis(Cause.DEPENDENCY_FAILURE, "dependency_failure")


def _score_baselines(cause_score: CauseScore, evidence: Evidence, began: datetime) -> None:
    """A dependency far above its baseline is a finding even within its objective."""
    for levels in evidence.dependency_levels:
        if levels.key not in evidence.dependencies or not levels.sli:
            continue
        found = unusual_levels(evidence, levels.key, levels.sli[-1], (ERROR_RATE, LATENCY))
        if found and load_since(levels.sli, began) <= OTHER_LOAD:
            cause_score.add_for(0.4, f"{levels.key.service}, a dependency: {'; '.join(found)}")


def _score_own_behaviour(cause_score: CauseScore, own: CandidateChange | None, evidence: Evidence) -> None:
    """Evidence from changes to the service itself."""
    if own is None or not own.recent:
        cause_score.add_for(0.2, "no recent change to the service itself is known")
    elif own.stuck:
        cause_score.add_against(0.5, f"{own.what} never started, which a dependency rarely causes")
    elif pods_fail(own, evidence):
        cause_score.add_against(0.3, f"the pods of {own.what} are unhealthy themselves")
