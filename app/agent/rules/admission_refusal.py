"""Rule: the API server refuses to create the pods: quota, Pod Security, admission policy."""

from __future__ import annotations

from app.agent.evidence.cluster.blockers import refusal
from app.agent.evidence.cluster.introduced import refusal_introduced
from app.agent.evidence.conditions import creation_refused, serving_words
from app.agent.evidence.counter_evidence import score_missing_data
from app.agent.evidence.facts import current_revision
from app.agent.evidence.scoring import CauseScore
from app.agent.models import Cause, Evidence, Hypothesis


def evaluate(evidence: Evidence) -> Hypothesis | None:
    """In the server's words. A template with a forbidden field is the cause instead."""
    workload = evidence.workload
    if workload is None or workload.replica_failure is None:
        return None
    cause_score = CauseScore()
    said = f"{refusal(workload.replica_failure)}: {workload.replica_failure}"
    cause_score.add_for(0.85 if creation_refused(workload) else 0.6, said)
    if workload.available_replicas < workload.desired_replicas:
        cause_score.add_for(0.2, serving_words(workload))
    current = current_revision(workload)
    if refusal_introduced(evidence) and current is not None:
        cause_score.add_against(0.75, f"it refuses the pods of revision {current.number}, older ones run")
    score_missing_data(cause_score, evidence)
    return cause_score.hypothesis(Cause.ADMISSION_REFUSAL, "admission_refusal")
