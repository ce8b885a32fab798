"""Rule: containers are OOM-killed since their limits or settings changed; the code did not change."""

from __future__ import annotations

from app.agent.evidence.change_score import score_change
from app.agent.evidence.changes import reported_config_of, template_config_of
from app.agent.evidence.facts import PodFault, out_of_memory
from app.agent.evidence.pods import PodWeights
from app.agent.models import ActionName, Cause, Evidence, Hypothesis

_POD_WEIGHTS: PodWeights = {PodFault.OUT_OF_MEMORY: 0.9}


def evaluate(evidence: Evidence) -> Hypothesis | None:
    """None unless containers run out of memory after a configuration change."""
    candidate_change = template_config_of(evidence) or reported_config_of(evidence)
    if candidate_change is None or not out_of_memory(evidence):
        return None
    cause_score = score_change(candidate_change, evidence, _POD_WEIGHTS, ActionName.REVERT_CONFIG)
    scalers = () if evidence.workload is None else evidence.workload.autoscalers
    vertical = next((one for one in scalers if not one.sets_replicas), None)
    if vertical is not None:
        cause_score.add_against(0.5, f"{vertical} sets the resources of its pods, not the template")
    return cause_score.hypothesis(Cause.RESOURCE_LIMIT, "resource_limit")
