"""Rule: only the pods on one node are unhealthy."""

from __future__ import annotations

from app.agent.evidence.counter_evidence import weigh_blindness
from app.agent.evidence.facts import Trouble
from app.agent.evidence.pods import sick, sick_node
from app.agent.evidence.scoring import Weighing
from app.agent.models import Cause, Evidence, Hypothesis


def evaluate(evidence: Evidence) -> Hypothesis | None:
    """None unless all unhealthy pods share a node without healthy pods, or their node is unreachable."""
    workload = evidence.workload
    if workload is None:
        return None
    weighing = Weighing()
    node = sick_node(workload.pods, evidence)
    found = sick(workload.pods, evidence)
    if node is not None:
        told = f"all {found.total()} unhealthy pods are on node {node}, and pods on other nodes are healthy"
        weighing.speaks_for(0.65, told)
    if found[Trouble.LOST]:
        told = f"{found[Trouble.LOST]} of {len(workload.pods)} pods are on an unreachable node"
        weighing.speaks_for(0.6, told)
    if found[Trouble.IMAGE] or found[Trouble.CONFIGURATION]:
        weighing.speaks_against(0.4, "some pods fail before they start, which a node rarely causes")
    weigh_blindness(weighing, evidence)
    return weighing.hypothesis(Cause.NODE_FAILURE, "node_failure")
