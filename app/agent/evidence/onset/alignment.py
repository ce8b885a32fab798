"""Whether the start of a symptom fits the rollout of a change. Pure.

The pods of a release are its own control group: if they served for a while and every
indicator stayed at its usual level, the defect is not one that the release shows at once.
A symptom measured before the change is not an effect of the change either.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from app.agent.evidence.changes import CandidateChange
from app.agent.evidence.facts import unhealthy_dependencies
from app.agent.evidence.onset.departure import Departure, departure
from app.agent.evidence.onset.load import calls_more_often, levels_of, one_source
from app.agent.evidence.pods import changed_pods, pods_fail
from app.agent.evidence.scoring import CauseScore
from app.agent.evidence.symptoms import METRIC_TRIGGERS, incident_onset, out_of_objective
from app.agent.ids import ServiceKey
from app.agent.models import Change, Evidence
from app.agent.workload import PodView
from app.durations import span

SERVED_LONG = timedelta(seconds=60)
"""As long as a measurement looks back by default: every request in it was answered since."""

SERVED_SHORTLY = timedelta(seconds=30)

_READ_BY = timedelta(minutes=3)
"""A ConfigMap that changed reaches the files of running pods in about two minutes, and a window shows it."""

_DEPENDENCY_CHANGED = timedelta(minutes=5)
"""A dependency that changed this shortly before the symptom may be the cause itself."""

_ROLLED_OUT = timedelta(seconds=90)
"""The least time between a change of a dependency and one of its caller in which the first rolls out."""

_DEPENDENCY_SAMPLES = 4
"""The number of measurements within the objectives that show that a changed dependency served well."""


def served_since(pods: tuple[PodView, ...]) -> datetime | None:
    """Since when half of these pods have served without interruption; None if fewer than half do."""
    ready = sorted(
        pod.ready_changed_at
        for pod in pods
        if pod.ready and pod.restarts == 0 and pod.ready_changed_at is not None
    )
    half = (len(pods) + 1) // 2
    return ready[half - 1] if pods and len(ready) >= half else None


def served_well_for(candidate_change: CandidateChange, evidence: Evidence) -> timedelta | None:
    """How long half of the pods with a change served at the usual level before the symptom; None: unknown."""
    workload, left = evidence.workload, departure(evidence)
    if workload is None or left is None or not candidate_change.in_template:
        return None
    since = served_since(changed_pods(candidate_change, workload))
    return None if since is None else left.after - since


def began_with_rollout(candidate_change: CandidateChange, evidence: Evidence) -> bool:
    """Whether the symptom began when the first pods with the change served, as far as is measured."""
    left, served = departure(evidence), served_well_for(candidate_change, evidence)
    if left is None or served is None or not candidate_change.confirmed:
        return False
    return left.by > candidate_change.at and served < SERVED_SHORTLY


def overloaded_by(candidate_change: CandidateChange, evidence: Evidence) -> dict[ServiceKey, float]:
    """Dependencies that fail since a change calls them more often, with the factor: they are not the cause.

    A dependency that was itself changed may fail because of that change, and failed calls are repeated; it
    counts only if it served within the objectives from its change until the change of its caller.
    """
    if not began_with_rollout(candidate_change, evidence):
        return {}
    began = incident_onset(evidence)
    changed = {
        c.key
        for c in evidence.changes
        if began - _DEPENDENCY_CHANGED <= c.at <= began and not _served_until(candidate_change, c, evidence)
    }
    factors = {
        one: calls_more_often(evidence, one) for one in unhealthy_dependencies(evidence) if one not in changed
    }
    return {one: factor for one, factor in factors.items() if factor is not None}


def _served_until(candidate_change: CandidateChange, changed: Change, evidence: Evidence) -> bool:
    """Whether a dependency rolled its change out, and served well, before its caller changed."""
    if candidate_change.at - changed.at < _ROLLED_OUT:
        return False
    levels = one_source(levels_of(evidence, changed.key))
    between = [s for s in levels if changed.at < s.at <= candidate_change.at]
    return len(between) >= _DEPENDENCY_SAMPLES and all(
        None not in (sample.error_rate, sample.p95_latency_ms)
        and not out_of_objective(sample, evidence.objectives)
        for sample in between
    )


def score_alignment(cause_score: CauseScore, candidate_change: CandidateChange, evidence: Evidence) -> None:
    """Findings about the start of a symptom in the service levels; pods that fail say more than the time."""
    left = departure(evidence)
    if left is None or not candidate_change.confirmed:
        return
    pods_say = pods_fail(candidate_change, evidence)
    if left.by <= candidate_change.at:
        early = span(candidate_change.at - left.by)
        found = f"the symptom was measured {early} before {candidate_change.what}"
        cause_score.add_against(0.6 if pods_say else 0.8, found)
        return
    if not candidate_change.in_template:
        _score_running_pods(cause_score, candidate_change, left, evidence)
        return
    served = served_well_for(candidate_change, evidence)
    pods_say = pods_say or not METRIC_TRIGGERS.issuperset(evidence.triggers)
    if served is not None and served >= SERVED_SHORTLY and not pods_say:
        cause_score.add_against(
            0.75 if served >= SERVED_LONG else 0.5,
            f"its pods had served at the usual level for {span(served)} when the symptom began",
        )


def _score_running_pods(
    cause_score: CauseScore, candidate_change: CandidateChange, left: Departure, evidence: Evidence
) -> None:
    """Pods that continued at the usual level had read the ConfigMap; later pods read it at their start."""
    workload, well = evidence.workload, left.after - candidate_change.at
    if workload is None or well < _READ_BY or not METRIC_TRIGGERS.issuperset(evidence.triggers):
        return
    since = candidate_change.at
    if any(since <= pod.created_at <= left.by or _restarted_since(pod, since) for pod in workload.pods):
        return
    cause_score.add_against(0.6, f"its pods ran at the usual level for {span(well)} before the symptom began")


def _restarted_since(pod: PodView, since: datetime) -> bool:
    """Whether a container of a pod may have started again since a time."""
    return pod.restarts > 0 and (pod.ready_changed_at is None or pod.ready_changed_at >= since)
