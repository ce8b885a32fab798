"""Counter-evidence: findings that make a candidate change a less likely cause.

Each finding is another explanation for the same symptoms. Where the pods with the
change are unhealthy, findings elsewhere count for less.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from statistics import median

from app.agent.evidence.baselines.comparison import usual_breaches
from app.agent.evidence.changes import CandidateChange, own_changes
from app.agent.evidence.cluster.containers import lowered_limit
from app.agent.evidence.cluster.routes import change_in_words, route_candidates
from app.agent.evidence.facts import (
    PodFault,
    config_map_changes,
    current_pods,
    current_revision,
    health_of,
    in_force_since,
    pod_fault,
    same_version,
    unhealthy_dependencies,
)
from app.agent.evidence.format import counted, relative
from app.agent.evidence.onset.alignment import began_with_rollout, overloaded_by
from app.agent.evidence.onset.departure import departure
from app.agent.evidence.pods import changed_pods, fault_counts, pods_fail
from app.agent.evidence.scoring import CauseScore
from app.agent.evidence.symptoms import (
    CLOCK_TOLERANCE,
    LATENCY,
    METRIC_TRIGGERS,
    TRAFFIC,
    breached,
    incident_onset,
    onset,
    points_of,
    rise,
)
from app.agent.models import ActionName, Change, ChangeKind, Evidence
from app.agent.workload import PodView, RevisionHealth
from app.durations import span

_MANY_OTHERS = 3
"""This many other unhealthy services suggest a shared cause."""

_ROUTES = 3
"""The maximum number of changes of Services, Ingresses and NetworkPolicies that are listed."""

_RARE = 3
"""The largest number of changes of other services within the look-back that counts as rare."""

_TOGETHER = timedelta(seconds=45)
"""Three samples: the objectives of two services are exceeded by different amounts."""

_SURGE_FACTOR = 2.0
"""Load that rose less since a release does not explain slow answers; what users repeat is less."""

_RISING = 1.2
_MIN_HALF = 2
"""Samples in each half of the time before a change, from which its trend is judged."""


def score_counter_evidence(
    cause_score: CauseScore, candidate_change: CandidateChange, evidence: Evidence
) -> None:
    """Apply every other explanation for the symptoms to the change's score."""
    _dependencies(cause_score, candidate_change, evidence)
    _later_changes(cause_score, candidate_change, evidence)
    _served_before(cause_score, candidate_change, evidence)
    _all_well(cause_score, evidence)
    _scaled_to_zero(cause_score, evidence)
    for line in usual_breaches(evidence):
        cause_score.add_against(0.5, line)
    if not pods_fail(candidate_change, evidence):
        _routes(cause_score, candidate_change, evidence)
        _traffic(cause_score, candidate_change, evidence)
        _score_other_failures(cause_score, evidence)
        _failed_together(cause_score, candidate_change, evidence)
    elif candidate_change.in_template and proved_at(candidate_change, evidence) is not None:
        _crashed_together(cause_score, evidence)
    score_missing_data(cause_score, evidence)


def score_tried_remedy(cause_score: CauseScore, action: ActionName, evidence: Evidence) -> None:
    """The remedy for this cause failed on this incident, which makes the cause less likely."""
    if action in evidence.failed_actions:
        cause_score.add_against(0.9, f"{action.words} was tried on this incident and did not help")


def score_missing_data(cause_score: CauseScore, evidence: Evidence) -> None:
    """Reduce confidence where data is missing, stale or unreliable."""
    if evidence.telemetry is not None and evidence.telemetry.outage:
        cause_score.add_against(0.6, "telemetry outage: its measurements are not reliable")
    if evidence.workload is None:
        cause_score.add_against(0.1, "no workload data from a cluster")
    if evidence.signals and all(s.stale for s in evidence.signals):
        oldest = min(s.observed_at for s in evidence.signals)
        cause_score.add_against(
            0.1, f"every signal was stale on arrival (the oldest is {span(evidence.at - oldest)} old)"
        )


def _dependencies(cause_score: CauseScore, candidate_change: CandidateChange, evidence: Evidence) -> None:
    overloaded = overloaded_by(candidate_change, evidence)
    for one, factor in overloaded.items():
        cause_score.add_for(0.3, f"since then it calls {one.service} {factor:.1f} times as often")
    down = [one for one in unhealthy_dependencies(evidence) if one not in overloaded]
    if down:
        names = ", ".join(d.service for d in down)
        cause_score.add_against(
            _dependency_weight(candidate_change, evidence), f"{names}, a dependency, is unhealthy too"
        )
    began = incident_onset(evidence)
    changed = [
        c for c in evidence.changes if c.key in evidence.dependencies and candidate_change.at < c.at < began
    ]
    if changed and not pods_fail(candidate_change, evidence):
        first = changed[0]
        when = relative(first.at, candidate_change.at)
        cause_score.add_against(0.35, f"{first.key.service}, a dependency, changed {when}: {first.summary}")


def _dependency_weight(candidate_change: CandidateChange, evidence: Evidence) -> float:
    """A dependency explains errors, less so crashes at start, and not an image that cannot be pulled."""
    if evidence.workload is None or not pods_fail(candidate_change, evidence):
        return 0.6
    found = fault_counts(changed_pods(candidate_change, evidence.workload), evidence)
    if found[PodFault.IMAGE] or found[PodFault.CONFIGURATION]:
        return 0.05
    return 0.55


def _later_changes(cause_score: CauseScore, candidate_change: CandidateChange, evidence: Evidence) -> None:
    if candidate_change.stuck:
        return
    began = incident_onset(evidence)
    between = [
        (at, other)
        for at, other in _changes_beside(candidate_change, evidence)
        if candidate_change.at + CLOCK_TOLERANCE < at < began
    ]
    if between:
        at, other = max(between)
        when = relative(at, candidate_change.at)
        found = f"another change was {when}, closer to the start of the incident: {other}"
        cause_score.add_against(0.5, found)


def _changes_beside(candidate_change: CandidateChange, evidence: Evidence) -> list[tuple[datetime, str]]:
    """Other changes of the service, as reported and as seen in the cluster."""
    if candidate_change.in_template:
        reported = own_changes(evidence, *(set(ChangeKind) - {ChangeKind.DEPLOY}))
        seen = [(c.at, f"ConfigMap {c.view.name}") for c in config_map_changes(evidence)]
    else:
        reported = own_changes(evidence, ChangeKind.DEPLOY, ChangeKind.FLAG, ChangeKind.SCALE)
        since = None if evidence.workload is None else in_force_since(evidence.workload)
        seen = [] if since is None else [(since, "a new revision")]
    return [(c.at, c.summary) for c in reported] + seen


def _served_before(cause_score: CauseScore, candidate_change: CandidateChange, evidence: Evidence) -> None:
    if evidence.workload is None or not candidate_change.in_template:
        return
    current = current_revision(evidence.workload)
    if current is None:
        return
    health = health_of(evidence, current)
    if health is RevisionHealth.FAILED:
        cause_score.add_for(0.4, f"revision {current.number} failed before")
        return
    proved = proved_at(candidate_change, evidence)
    limited = lowered_limit(evidence)
    if proved is None or limited is not None:
        return  # memory grows into a lower limit: pods that served for a while are no evidence for it
    cause_score.add_against(
        0.4, f"revision {current.number} was healthy for at least {span(proved - candidate_change.at)}"
    )
    if current.number == 1:
        cause_score.add_against(0.4, "it is the first revision: it replaced no version that worked")
    elsewhere = _changed_elsewhere(proved, evidence)
    if elsewhere is not None:
        when = relative(elsewhere.at, incident_onset(evidence), "the incident started")
        cause_score.add_against(0.3, f"{elsewhere.key.service} changed {when}: {elsewhere.summary}")
    pods = current_pods(evidence.workload)
    failing = [p for p in pods if pod_fault(p, evidence.at) is not None]
    failing = failing or [p for p in pods if p.restarts > 0]  # between two crashes it may be ready
    if failing and all(pod.created_at > proved for pod in failing):
        cause_score.add_against(
            0.6,
            f"its {counted(len(failing), 'failing pod')} started after that, from the same template: "
            "what they need at their start has changed",
        )
    elif failing and all(_became_unready(pod, proved, evidence) for pod in failing):
        cause_score.add_against(
            0.5, f"its {counted(len(failing), 'failing pod')} stopped being ready after that, without a crash"
        )


def _changed_elsewhere(proved: datetime, evidence: Evidence) -> Change | None:
    """The last change of another service as the incident started, since a version served well; else None.

    Of a service that this one calls or is called by, where calls are known. Where they are not, only
    while changes are rare: among many releases one falls into that moment by chance.
    """
    began = incident_onset(evidence)
    first, last = max(proved, began - _TOGETHER), began + CLOCK_TOLERANCE
    behind = (levels.key for levels in evidence.dependency_levels)
    related = {*evidence.dependencies, *evidence.callers, *behind}
    others = [c for c in evidence.changes if c.key != evidence.key and (not related or c.key in related)]
    if not related and len(others) > _RARE:
        return None
    found = [c for c in others if first <= c.at <= last]
    return max(found, key=lambda c: c.at, default=None)


def proved_at(candidate_change: CandidateChange, evidence: Evidence) -> datetime | None:
    """When the template of a change was last recorded as serving well, before the incident started."""
    workload = evidence.workload
    current = None if workload is None else current_revision(workload)
    if workload is None or current is None or not candidate_change.in_template:
        return None
    same = {r.template_hash for r in workload.revisions if same_version(r, current)}
    good = [
        r.seen_at
        for r in evidence.revision_history
        if r.key == evidence.key
        and r.template_hash in same
        and r.health is RevisionHealth.SERVED_WELL
        and candidate_change.at < r.seen_at < incident_onset(evidence)
    ]
    return max(good, default=None)


def _became_unready(pod: PodView, proved: datetime, evidence: Evidence) -> bool:
    """Whether a pod runs, and is not ready since a time after that."""
    since = pod.ready_changed_at
    return pod_fault(pod, evidence.at) is PodFault.NOT_READY and since is not None and since > proved


def _all_well(cause_score: CauseScore, evidence: Evidence) -> None:
    workload = evidence.workload
    if workload is None or evidence.conditions or not METRIC_TRIGGERS.isdisjoint(evidence.triggers):
        return
    pods = current_pods(workload)
    if workload.rollout_complete and pods and all(p.ready for p in pods):
        cause_score.add_against(0.7, f"the rollout is complete and all {len(pods)} pods are ready")


def _scaled_to_zero(cause_score: CauseScore, evidence: Evidence) -> None:
    if evidence.workload is not None and evidence.workload.desired_replicas == 0:
        cause_score.add_against(0.9, "the workload is scaled to zero: no version of it runs")


def _routes(cause_score: CauseScore, candidate_change: CandidateChange, evidence: Evidence) -> None:
    """A Service, Ingress or NetworkPolicy that was changed so that it can keep requests away.

    One write may change many of them, and is one other explanation: only the newest has a weight.
    """
    for place, change in enumerate(route_candidates(evidence)[:_ROUTES]):
        weight = 0.55 if change.at > candidate_change.at else 0.35
        if began_with_rollout(candidate_change, evidence):
            weight = 0.15
        cause_score.add_against(weight if place == 0 else 0.0, change_in_words(change, evidence))


def _traffic(cause_score: CauseScore, candidate_change: CandidateChange, evidence: Evidence) -> None:
    """More load is another explanation; after the onset only for slow answers that no caller repeats."""
    surge = rise(evidence, TRAFFIC)
    if surge is None or surge.at <= candidate_change.at:
        return
    went = f"request rate went from {TRAFFIC.in_words(surge.base)} to {TRAFFIC.in_words(surge.level)}"
    if surge.at <= incident_onset(evidence):
        cause_score.add_against(0.4, f"{went} in between")
    elif (
        LATENCY in breached(evidence)
        and not evidence.callers
        and surge.level >= _SURGE_FACTOR * surge.base
        and _was_steady(evidence, candidate_change.at)
    ):
        cause_score.add_against(0.45, f"{went} since, which explains slow answers too")


def _was_steady(evidence: Evidence, until: datetime) -> bool:
    """Whether the request rate was known and not rising before a change: a start of traffic is no surge."""
    before = [value for at, value in points_of(evidence, TRAFFIC) if at < until]
    half = len(before) // 2
    return half >= _MIN_HALF and median(before[half:]) < _RISING * median(before[:half])


def _score_other_failures(cause_score: CauseScore, evidence: Evidence) -> None:
    others = [k for k in evidence.other_open_incidents if k not in evidence.dependencies]
    if len(others) >= _MANY_OTHERS:
        cause_score.add_against(0.1, f"{len(others)} other services are unhealthy at the same time")


def _failed_together(cause_score: CauseScore, candidate_change: CandidateChange, evidence: Evidence) -> None:
    """Services without mutual calls that fail together have a common cause, not a release of one of them.

    If the symptom began with the rollout of the change, the change may cause their failure through shared
    resources. A ConfigMap is such a shared resource.
    """
    if not candidate_change.in_template:
        return
    together = failing_together(evidence)
    if not together:
        return
    weight = 0.2 if began_with_rollout(candidate_change, evidence) else 0.6
    cause_score.add_against(
        weight,
        f"{', '.join(together)} began to fail at the same moment, and neither calls the other",
    )


def _crashed_together(cause_score: CauseScore, evidence: Evidence) -> None:
    """A version that had served well, and crashes at the moment when other services fail: a common cause."""
    related = frozenset(failing_together(evidence))
    together = related or frozenset(failing_together(evidence, unknown_too=True))
    if together:
        found = f"{', '.join(sorted(together))} began to fail at the same moment"
        cause_score.add_against(0.6 if related else 0.3, found)


def failing_together(evidence: Evidence, *, unknown_too: bool = False) -> list[str]:
    """The services that began to fail at the same moment and share no calls with this one.

    With `unknown_too` also where no calls of the service are known.
    """
    left = departure(evidence)
    began = {onset(evidence)} | ({left.by} if left is not None else set())
    no_calls = unknown_too and not (evidence.callers or evidence.dependencies)
    return sorted(
        one.key.service
        for one in evidence.failing_beside
        if (one.unrelated or no_calls) and any(abs(one.since - moment) <= _TOGETHER for moment in began)
    )
