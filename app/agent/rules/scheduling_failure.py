"""Rule: no node takes the pods: selector, taint or capacity."""

from __future__ import annotations

from app.agent.evidence.cluster.introduced import introduced
from app.agent.evidence.conditions import pod_words
from app.agent.evidence.counter_evidence import score_missing_data
from app.agent.evidence.facts import PodFault, current_revision
from app.agent.evidence.pods import faulty
from app.agent.evidence.scoring import CauseScore
from app.agent.models import Cause, Evidence, Hypothesis


def evaluate(evidence: Evidence) -> Hypothesis | None:
    """In the scheduler's words. A template with a request that no node can satisfy is the cause instead."""
    workload = evidence.workload
    affected = () if workload is None else faulty(workload, PodFault.UNSCHEDULED, evidence)
    if workload is None or not affected:
        return None
    cause_score = CauseScore()
    words = pod_words(affected[0], evidence.at) or "no node takes it"
    cause_score.add_for(0.8, f"{len(affected)} of {len(workload.pods)} pods cannot be scheduled: {words}")
    current = current_revision(workload)
    if introduced(evidence, PodFault.UNSCHEDULED) and current is not None:
        cause_score.add_against(0.75, f"revision {current.number} changed what its pods ask of a node")
    lost = faulty(workload, PodFault.LOST, evidence)
    if lost:
        cause_score.add_against(0.4, f"{len(lost)} pods are on an unreachable node, whose room is missing")
    score_missing_data(cause_score, evidence)
    return cause_score.hypothesis(Cause.SCHEDULING_FAILURE, "scheduling_failure")
