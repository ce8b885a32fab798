"""The score of a cause that is a change of a Service, Ingress or NetworkPolicy. Pure."""

from __future__ import annotations

from app.agent.evidence.changes import release_of, template_config_of
from app.agent.evidence.cluster.routes import cause_of, change_in_words, route_candidates
from app.agent.evidence.counter_evidence import score_missing_data
from app.agent.evidence.onset.alignment import began_with_rollout
from app.agent.evidence.pods import pods_fail
from app.agent.evidence.scoring import CauseScore
from app.agent.evidence.symptoms import incident_onset
from app.agent.models import Cause, Evidence, Trigger

_VISIBLE = frozenset(
    {Trigger.HIGH_ERROR_RATE, Trigger.HIGH_LATENCY, Trigger.CRASH_LOOP, Trigger.PODS_UNAVAILABLE}
)
_CHANGED = 0.65
_LISTED = 3


def shows_routes(evidence: Evidence) -> bool:
    """Whether users or pods notice something that lost requests explain."""
    return not _VISIBLE.isdisjoint(evidence.triggers)


def score_routes(cause: Cause, evidence: Evidence) -> CauseScore:
    """The changes that are this cause, made just before the symptom. Many count as one."""
    cause_score = CauseScore()
    found = [one for one in route_candidates(evidence) if cause_of(one) is cause]
    for place, change in enumerate(found[:_LISTED]):
        cause_score.add_for(_CHANGED if place == 0 else 0.0, change_in_words(change, evidence))
    return cause_score


def score_against_routes(cause_score: CauseScore, evidence: Evidence) -> None:
    """A release at the same time is the likelier cause where the symptom began with its pods."""
    own = release_of(evidence) or template_config_of(evidence)
    if own is not None and own.recent:
        if pods_fail(own, evidence):
            cause_score.add_against(0.6, f"the pods of {own.what} are unhealthy themselves")
        elif own.at < incident_onset(evidence) and began_with_rollout(own, evidence):
            cause_score.add_against(0.45, f"the symptom began with the first pods of {own.what}")
    score_missing_data(cause_score, evidence)
