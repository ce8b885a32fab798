"""Rule: the pods are well except on one node."""

from __future__ import annotations

from app.agent.evidence.counter_evidence import weigh_blindness
from app.agent.evidence.facts import Trouble
from app.agent.evidence.pods import sick, sick_node
from app.agent.evidence.scoring import Weighing
from app.agent.models import Cause, Evidence, Hypothesis


def evaluate(evidence: Evidence) -> Hypothesis | None:
    """None unless the sick pods share a node that no well pod is on, or their node does not answer."""
    workload = evidence.workload
    if workload is None:
        return None
    weighing = Weighing()
    node = sick_node(workload.pods, evidence)
    found = sick(workload.pods, evidence)
    if node is not None:
        told = f"all {found.total()} sick pods are on node {node}, and pods on other nodes are well"
        weighing.speaks_for(0.65, told)
    if found[Trouble.LOST]:
        told = f"{found[Trouble.LOST]} of {len(workload.pods)} pods are on a node that does not answer"
        weighing.speaks_for(0.6, told)
    if found[Trouble.IMAGE] or found[Trouble.CONFIGURATION]:
        weighing.speaks_against(0.4, "some pods fail before they start, which a node seldom explains")
    weigh_blindness(weighing, evidence)
    return weighing.hypothesis(Cause.NODE_FAILURE, "node_failure")
