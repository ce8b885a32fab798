"""Rule: the image registry does not answer, or no longer has an image that ran before."""

from __future__ import annotations

from app.agent.evidence.cluster.introduced import introduced
from app.agent.evidence.conditions import pod_words
from app.agent.evidence.counter_evidence import score_missing_data
from app.agent.evidence.facts import PodFault, current_revision
from app.agent.evidence.pods import faulty, score_same_template
from app.agent.evidence.scoring import CauseScore
from app.agent.models import Cause, Evidence, Hypothesis


def evaluate(evidence: Evidence) -> Hypothesis | None:
    """A release that names an image or a registry that does not exist is the cause instead."""
    workload = evidence.workload
    if workload is None:
        return None
    silent = faulty(workload, PodFault.REGISTRY, evidence)
    without = () if introduced(evidence, PodFault.IMAGE) else faulty(workload, PodFault.IMAGE, evidence)
    affected = (*silent, *without)
    if not affected:
        return None
    cause_score = CauseScore()
    words = pod_words(affected[0], evidence.at)
    finding = f"{len(affected)} of {len(workload.pods)} pods cannot pull their image: {words}"
    cause_score.add_for(0.85 if silent else 0.7, finding)
    score_same_template(cause_score, affected, evidence)
    current = current_revision(workload)
    if silent and introduced(evidence, PodFault.REGISTRY) and current is not None:
        cause_score.add_against(0.75, f"revision {current.number} names another registry")
    score_missing_data(cause_score, evidence)
    return cause_score.hypothesis(Cause.REGISTRY_FAILURE, "registry_failure")
