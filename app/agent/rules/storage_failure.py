"""Rule: a volume of the pods cannot be bound, attached or mounted."""

from __future__ import annotations

from app.agent.evidence.cluster.introduced import introduced
from app.agent.evidence.conditions import pod_words
from app.agent.evidence.counter_evidence import score_missing_data
from app.agent.evidence.facts import PodFault, current_revision
from app.agent.evidence.pods import faulty
from app.agent.evidence.scoring import CauseScore
from app.agent.models import Cause, Evidence, Hypothesis


def evaluate(evidence: Evidence) -> Hypothesis | None:
    """In the words of the node or the scheduler. A template with another volume is the cause instead."""
    workload = evidence.workload
    affected = () if workload is None else faulty(workload, PodFault.STORAGE, evidence)
    if workload is None or not affected:
        return None
    cause_score = CauseScore()
    words = pod_words(affected[0], evidence.at)
    cause_score.add_for(0.8, f"{len(affected)} of {len(workload.pods)} pods wait for a volume: {words}")
    current = current_revision(workload)
    if introduced(evidence, PodFault.STORAGE) and current is not None:
        cause_score.add_against(0.75, f"revision {current.number} changed the volumes")
    lost = faulty(workload, PodFault.LOST, evidence)
    if lost:
        cause_score.add_against(0.5, f"{len(lost)} pods are on an unreachable node that may hold it")
    score_missing_data(cause_score, evidence)
    return cause_score.hypothesis(Cause.STORAGE_FAILURE, "storage_failure")
