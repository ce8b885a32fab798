"""Pod evidence about a change: which pods are unhealthy, with which fault, and which are healthy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import timedelta

from app.agent.evidence.changes import CandidateChange
from app.agent.evidence.cluster.blockers import refusal
from app.agent.evidence.cluster.containers import untouched_failing
from app.agent.evidence.cluster.introduced import OUTER_FAULTS, introduced, refusal_introduced
from app.agent.evidence.cluster.node_neighbours import failing_with, only_node, twins_elsewhere
from app.agent.evidence.cluster.release_records import pending_words
from app.agent.evidence.facts import (
    PodFault,
    current_pods,
    migrating,
    older_pods,
    pod_fault,
    served,
)
from app.agent.evidence.format import counted, share
from app.agent.evidence.scoring import CauseScore
from app.agent.evidence.symptoms import ERROR_RATE, LATENCY, now_at
from app.agent.models import Condition, Evidence, Trigger
from app.agent.workload import PodView, WorkloadView

PROVEN = timedelta(minutes=1)
"""A younger pod is not evidence of health."""

_MORE_THAN_MISSING = 0.3
"""Failed requests beyond the share of missing pods come from serving pods."""

_UNTOUCHED = 0.6
"""A change rarely makes an unchanged container fail: only through resources that the containers share."""

PodWeights = Mapping[PodFault, float]


def fault_counts(pods: tuple[PodView, ...], evidence: Evidence) -> Counter[PodFault]:
    """The number of pods with each fault."""
    return Counter(t for p in pods if (t := pod_fault(p, evidence.at)) is not None)


def faulty(workload: WorkloadView, fault: PodFault, evidence: Evidence) -> tuple[PodView, ...]:
    """The pods of a workload with that fault."""
    return tuple(pod for pod in workload.pods if pod_fault(pod, evidence.at) is fault)


def score_same_template(cause_score: CauseScore, affected: tuple[PodView, ...], evidence: Evidence) -> None:
    """Ready pods of the same template show that it works: an object that it needs has disappeared since."""
    workload = evidence.workload
    templates = {pod.template_hash for pod in affected}
    ready = [] if workload is None else [p for p in workload.pods if p.ready and p.template_hash in templates]
    if ready:
        cause_score.add_for(0.3, f"{counted(len(ready), 'pod')} of the same template started before")


def sound(pods: tuple[PodView, ...], evidence: Evidence) -> int:
    """The number of ready pods older than `PROVEN` that never restarted."""
    return sum(p.ready and p.restarts == 0 and evidence.at - p.created_at >= PROVEN for p in pods)


def changed_pods(candidate_change: CandidateChange, workload: WorkloadView) -> tuple[PodView, ...]:
    """The pods with the change: the pods of the current template, or all pods for a ConfigMap."""
    return current_pods(workload) if candidate_change.in_template else workload.pods


def pods_fail(candidate_change: CandidateChange, evidence: Evidence) -> bool:
    """Whether the cluster shows faults in the pods with the change."""
    workload = evidence.workload
    if workload is None:
        return False
    return bool(fault_counts(changed_pods(candidate_change, workload), evidence)) or candidate_change.stuck


def score_pods(
    cause_score: CauseScore, candidate_change: CandidateChange, evidence: Evidence, weights: PodWeights
) -> None:
    """Apply pod findings to the score; `weights` gives the weight of each fault for the cause."""
    workload = evidence.workload
    if workload is None:
        _score_reported_pods(cause_score, evidence, weights)
        return
    pods = changed_pods(candidate_change, workload)
    found = fault_counts(pods, evidence)
    met = _met_faults(candidate_change, found, evidence)
    for kind, count in sorted(found.items()):
        weight = 0.0 if kind in met else weights.get(kind, 0.0)
        if kind is PodFault.NOT_READY and not (candidate_change.stuck or not any(p.ready for p in pods)):
            weight *= 0.4
        if weight > 0:
            cause_score.add_for(weight, f"{count} of {len(pods)} pods with it {kind}")
    restarted = sum(p.restarts for p in pods)
    if not found and restarted and Trigger.CRASH_LOOP in evidence.triggers:
        cause_score.add_for(0.6, f"its pods restarted {restarted} times and a crash loop is reported")
    if candidate_change.in_template:
        untouched = untouched_failing(evidence)
        if untouched:
            left = f"the change did not touch what fails: {', '.join(untouched)}"
            cause_score.add_against(_UNTOUCHED, left)
        _score_older_pods(cause_score, found, workload, evidence)
        if workload.progress_deadline_exceeded:
            cause_score.add_for(0.4, "the rollout did not finish before its deadline")
        pending = pending_words(workload, evidence.at)
        if pending is not None:
            cause_score.add_for(0.2, pending)
    for kind in sorted(met):
        cause_score.add_against(0.85, f"{found[kind]} of its pods {kind}, which the change did not cause")
    _score_unstarted_pods(cause_score, candidate_change, pods, evidence, weights)
    _score_healthy_pods(cause_score, pods, found, evidence)


def score_migration(cause_score: CauseScore, evidence: Evidence) -> None:
    """A migration of data that runs in a new pod must not be stopped."""
    pod = migrating(evidence.workload, evidence.at)
    if pod is not None and pod.failing is not None:
        cause_score.add_against(
            0.9,
            f"init container {pod.failing.name} seems to migrate data: a rollback would stop it midway",
        )


def _score_reported_pods(cause_score: CauseScore, evidence: Evidence, weights: PodWeights) -> None:
    """Without a cluster: use only the pod conditions that signals reported."""
    kinds = {
        Condition.IMAGE_PULL_BACK_OFF: PodFault.IMAGE,
        Condition.OOM_KILLED: PodFault.OUT_OF_MEMORY,
        Condition.CRASH_LOOP_BACK_OFF: PodFault.CRASH,
    }
    for condition, kind in kinds.items():
        weight = weights.get(kind, 0.0) / 2
        if condition in evidence.conditions and weight > 0:
            cause_score.add_for(weight, f"{condition} is reported (no cluster connected to confirm it)")


def _score_older_pods(
    cause_score: CauseScore, found: Counter[PodFault], workload: WorkloadView, evidence: Evidence
) -> None:
    """Pods of the previous template are the control group."""
    older = older_pods(workload)
    if not older or not found:
        return
    failing = _failing_without(older, workload, evidence)
    if failing is not None:
        cause_score.add_against(
            0.85, f"{share(failing)} of the requests fail, and only pods without it serve"
        )
        return
    bad = fault_counts(older, evidence).total()
    if bad * 2 >= len(older):
        cause_score.add_against(0.7, f"{bad} of {len(older)} pods without it are unhealthy too")
    elif all(p.ready for p in older):
        cause_score.add_for(0.3, f"all {len(older)} pods without it are healthy")


def _failing_without(older: tuple[PodView, ...], workload: WorkloadView, evidence: Evidence) -> float | None:
    """The share of failed requests if only pods without the change serve them; else None.

    Missing pods explain failures up to their share, slow answers indicate a lack of capacity, and a version
    that never served requests may itself fail them.
    """
    proved = {one.template_hash for one in workload.revisions if served(evidence, one)}
    if not any(pod.ready and pod.template_hash in proved for pod in older):
        return None
    serving = sum(pod.ready for pod in older)
    failing, p95 = now_at(evidence, ERROR_RATE), now_at(evidence, LATENCY)
    objectives = evidence.objectives
    if failing is None or objectives is None or any(p.ready for p in current_pods(workload)):
        return None
    if p95 is not None and p95 > objectives.max_p95_latency_ms:
        return None
    missing = max(0.0, 1.0 - serving / max(workload.desired_replicas, 1))
    return failing if failing > missing + _MORE_THAN_MISSING else None


def _met_faults(
    candidate_change: CandidateChange, found: Counter[PodFault], evidence: Evidence
) -> frozenset[PodFault]:
    """The faults that would stop any pod of the service: a template change is not their cause."""
    if not candidate_change.in_template:
        return frozenset(found) & (OUTER_FAULTS - {PodFault.CONFIGURATION})
    return frozenset(kind for kind in found if kind in OUTER_FAULTS and not introduced(evidence, kind))


def _score_unstarted_pods(
    cause_score: CauseScore,
    candidate_change: CandidateChange,
    pods: tuple[PodView, ...],
    evidence: Evidence,
    weights: PodWeights,
) -> None:
    """Pods that were never created or are lost: evidence about the cluster, unless the change caused it."""
    workload = evidence.workload
    if workload is None:
        return
    if workload.replica_failure is not None and candidate_change.in_template:
        words = refusal(workload.replica_failure)
        if refusal_introduced(evidence):
            weight = weights.get(PodFault.UNSCHEDULED, 0.0)
            cause_score.add_for(weight, f"{words} since the change: {workload.replica_failure}")
        else:
            cause_score.add_against(0.85, f"{words}, which the change did not cause")
    elif workload.desired_replicas > 0 and not pods:
        cause_score.add_against(0.5, "the cluster has not created a pod with it yet")
    lost = fault_counts(pods, evidence)[PodFault.LOST]
    if lost:
        cause_score.add_against(0.6, f"{lost} of its pods are on an unreachable node")


def _score_healthy_pods(
    cause_score: CauseScore, pods: tuple[PodView, ...], found: Counter[PodFault], evidence: Evidence
) -> None:
    """Healthy pods with the change suggest that the node is at fault, not the change."""
    well = sound(pods, evidence)
    if not well or not found:
        return
    finding = f"{well} of {len(pods)} pods with it are healthy and never restarted"
    node = failing_node(pods, evidence)
    if node is not None:
        cause_score.add_against(0.6, f"{finding}; all unhealthy ones are on node {node}")
    else:
        cause_score.add_against(0.15, finding)


def failing_node(pods: tuple[PodView, ...], evidence: Evidence) -> str | None:
    """The one node that holds every unhealthy pod and no healthy pod; None otherwise.

    One unhealthy pod is enough if its template is healthy elsewhere and other services also fail only on
    this node.
    """
    node = only_node(pods, evidence.at)
    if node is None:
        return None
    if fault_counts(pods, evidence).total() >= 2:
        return node
    return node if twins_elsewhere(pods, evidence.at) and failing_with(node, evidence) else None


def lost_node(pods: tuple[PodView, ...], evidence: Evidence) -> str | None:
    """The one unreachable node of a service that has healthy pods on other nodes; None otherwise."""
    lost = {p.node for p in pods if pod_fault(p, evidence.at) is PodFault.LOST}
    node = next(iter(lost), None)
    if len(lost) != 1 or node is None:
        return None
    return node if any(p.ready and p.node not in (None, node) for p in pods) else None
