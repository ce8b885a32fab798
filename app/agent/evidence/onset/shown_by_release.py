"""Whether a release caused a symptom so clearly that waiting adds nothing. Pure.

A short breach during a rollout has other causes: connections that the rollout cuts, more load, cold caches,
a dependency. The measurements show each of them. If none is visible, and the errors grew once only the new
pods served, the release caused them.
"""

from __future__ import annotations

from datetime import timedelta
from statistics import median

from app.agent.evidence.changes import CandidateChange, release_of, template_config_of
from app.agent.evidence.facts import current_pods, older_pods, unhealthy_dependencies
from app.agent.evidence.onset.alignment import began_with_rollout
from app.agent.evidence.onset.departure import departure_of
from app.agent.evidence.symptoms import ERROR_RATE, LATENCY, TRAFFIC, points_of, reported
from app.agent.models import Cause, Diagnosis, Evidence

FAR_ABOVE = 4.0
"""From this multiple of its objective on, an error rate is far above it."""

_SAMPLES = 2
"""So many samples in a row are far above the objective; one may be noise or the end of the last older pod."""

_DRAINED = timedelta(seconds=30)
"""So long after the last new pod became ready the older ones have ended, with the usual grace period."""

_STAYS = 0.9
"""Errors fall where the newest sample is below this share of the ones before."""

_SAME_LOAD = 1.3
"""Requests up to this multiple of the usual are the same load."""

_USUAL_LOAD = timedelta(minutes=5)
"""The load during this time before the symptom is the usual one."""

_OF_THE_RELEASE = frozenset({Cause.BAD_RELEASE, Cause.BAD_CONFIG})


def may_be_of_release(evidence: Evidence, diagnosis: Diagnosis) -> bool:
    """Whether more measurements may show that the newest release explains the errors."""
    if diagnosis.best.cause not in _OF_THE_RELEASE or ERROR_RATE not in reported(evidence):
        return False
    # Callers fail as its effect.
    others = any(one.key not in evidence.callers for one in evidence.failing_beside)
    return not others and not unhealthy_dependencies(evidence)


def shown_by_release(evidence: Evidence, diagnosis: Diagnosis) -> bool:
    """Whether only the newest release explains the errors: False where anything else may."""
    own = release_of(evidence) or template_config_of(evidence)
    return (
        own is not None
        and may_be_of_release(evidence, diagnosis)
        and began_with_rollout(own, evidence)
        and _far_above(evidence)
        and _grew_with_new_pods_alone(own, evidence)
        and _same_load(evidence)
    )


def _far_above(evidence: Evidence) -> bool:
    """Whether many errors are the only symptom: slow answers may come from cold caches."""
    objectives = evidence.objectives
    errors, p95 = points_of(evidence, ERROR_RATE), points_of(evidence, LATENCY)
    if objectives is None or not errors or not p95:
        return False
    return errors[-1][1] >= FAR_ABOVE * objectives.max_error_rate and (
        p95[-1][1] <= objectives.max_p95_latency_ms
    )


def _grew_with_new_pods_alone(own: CandidateChange, evidence: Evidence) -> bool:
    """Whether the errors grew after the last new pod was ready and no other pod was left.

    The last older pod still cuts connections while it terminates, after the last new pod is ready: this
    gives one high sample, or falling errors. Several samples that stay high some time later have another
    cause.
    """
    workload, objectives = evidence.workload, evidence.objectives
    if workload is None or objectives is None or not own.in_template or older_pods(workload):
        return False
    ready = [pod.ready_changed_at for pod in current_pods(workload) if pod.ready]
    since = max((at for at in ready if at is not None), default=None)
    if since is None or len(ready) < workload.desired_replicas or None in ready:
        return False
    points = points_of(evidence, ERROR_RATE)
    before = [value for at, value in points if at <= since]
    after = [value for at, value in points if at > since][-_SAMPLES:]
    if not before or len(after) < _SAMPLES or evidence.at - since < _DRAINED:
        return False
    grown = min(after) - before[-1] >= objectives.max_error_rate
    return grown and min(after) >= FAR_ABOVE * objectives.max_error_rate and after[-1] >= _STAYS * max(after)


def _same_load(evidence: Evidence) -> bool:
    """Whether the load is known to be the usual one since the symptom began."""
    left = departure_of(evidence, ERROR_RATE)
    if left is None:
        return False
    points = points_of(evidence, TRAFFIC)
    usual = [value for at, value in points if left.after - _USUAL_LOAD <= at <= left.after]
    since = [value for at, value in points if at > left.after]
    return bool(usual) and bool(since) and max(since) <= _SAME_LOAD * median(usual)
