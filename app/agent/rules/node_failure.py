"""Rule: only the pods on one node are unhealthy, also of a node that reports to be ready."""

from __future__ import annotations

from app.agent.evidence.cluster.node_neighbours import failing_with
from app.agent.evidence.counter_evidence import score_missing_data
from app.agent.evidence.facts import PodFault
from app.agent.evidence.pods import failing_node, fault_counts, faulty
from app.agent.evidence.scoring import CauseScore
from app.agent.models import Cause, Evidence, Hypothesis
from app.lists import some_of

_MOST_NAMED = 3


def evaluate(evidence: Evidence) -> Hypothesis | None:
    """None unless all unhealthy pods share a node without healthy pods, or their node is unreachable."""
    workload = evidence.workload
    if workload is None:
        return None
    cause_score = CauseScore()
    node = failing_node(workload.pods, evidence)
    found = fault_counts(workload.pods, evidence)
    if node is not None:
        affected = f"all {found.total()} unhealthy pods are" if found.total() > 1 else "the unhealthy pod is"
        cause_score.add_for(0.65, f"{affected} on node {node}, and pods on other nodes are healthy")
        others = failing_with(node, evidence)
        if others:
            named = some_of([str(one) for one in others], _MOST_NAMED)
            cause_score.add_for(0.5, f"pods of {named} fail on node {node} too, and are healthy elsewhere")
    if found[PodFault.LOST]:
        lost = sorted({pod.node or "unknown" for pod in faulty(workload, PodFault.LOST, evidence)})
        finding = (
            f"{found[PodFault.LOST]} of {len(workload.pods)} pods are on node {', '.join(lost)}, "
            "which no longer reports to the cluster"
        )
        cause_score.add_for(0.8, finding)
    if found[PodFault.IMAGE] or found[PodFault.CONFIGURATION]:
        cause_score.add_against(0.4, "some pods fail before they start, which a node rarely causes")
    score_missing_data(cause_score, evidence)
    return cause_score.hypothesis(Cause.NODE_FAILURE, "node_failure")
